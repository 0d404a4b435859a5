//! The API servers that an agent knows, and which of them to try first.
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// The API's usual port.
const PORT: u16 = 6443;
/// More are not remembered: whoever writes the list must not fill the agent.
const SERVERS_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("server {text:?} is not https://HOST:PORT, like https://192.0.2.1:6443")]
pub struct AddressError {
    text: String,
}

/// `https://HOST:PORT`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    /// A name or an address, an IPv6 one without brackets.
    pub host: String,
    pub port: u16,
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError { text: text.to_owned() };
        let rest = text.trim().strip_prefix("https://").ok_or_else(wrong)?;
        let authority: http::uri::Authority = rest.trim_end_matches('/').parse().map_err(|_| wrong())?;
        // No user in front, and behind the host a port or nothing.
        let port = match authority.as_str().strip_prefix(authority.host()).ok_or_else(wrong)? {
            "" => PORT,
            port => port.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(wrong)?,
        };
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        if host.is_empty() { Err(wrong()) } else { Ok(Self { host, port }) }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

/// The list, which changes while the agent runs.
#[derive(Debug)]
pub struct Servers {
    list: watch::Sender<Vec<ServerAddress>>,
    /// The last that worked.
    preferred: Mutex<Option<ServerAddress>>,
}

impl Servers {
    pub fn new(list: Vec<ServerAddress>) -> Self {
        Self { list: watch::Sender::new(bounded(list)), preferred: Mutex::default() }
    }

    pub fn list(&self) -> Vec<ServerAddress> {
        self.list.borrow().clone()
    }

    pub fn subscribe(&self) -> watch::Receiver<Vec<ServerAddress>> {
        self.list.subscribe()
    }

    /// `false` where it is the list that was there.
    pub fn replace(&self, list: Vec<ServerAddress>) -> bool {
        let list = bounded(list);
        self.list.send_if_modified(|current| {
            let differs = *current != list;
            *current = list;
            differs
        })
    }

    /// In the order in which to try them: the last that worked, then as they stand in the list.
    pub fn order(&self) -> Vec<ServerAddress> {
        let mut list = self.list();
        let preferred = self.preferred();
        list.sort_by_key(|server| Some(server) != preferred.as_ref());
        list
    }

    pub fn worked(&self, server: &ServerAddress) {
        *self.preferred() = Some(server.clone());
    }

    fn preferred(&self) -> std::sync::MutexGuard<'_, Option<ServerAddress>> {
        self.preferred.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounded(list: Vec<ServerAddress>) -> Vec<ServerAddress> {
    let mut unique = Vec::new();
    for server in list {
        if !unique.contains(&server) && unique.len() < SERVERS_MAX {
            unique.push(server);
        }
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ServerAddress {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_read_and_written() {
        for (text, wanted) in [
            ("https://10.0.0.1:6443", "https://10.0.0.1:6443"),
            (" https://Api.Example.org/ ", "https://api.example.org:6443"),
            ("https://[fd00::1]:7000", "https://[fd00::1]:7000"),
        ] {
            assert_eq!(address(text).to_string(), wanted);
        }
        for text in ["10.0.0.1:6443", "http://a:1", "https://", "https://a:70000", "https://u@a", "https://a/b"] {
            assert!(text.parse::<ServerAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_that_worked_comes_first_as_long_as_it_is_known() {
        let [a, b, c] = ["https://a", "https://b", "https://c"].map(address);
        let servers = Servers::new(vec![a.clone(), b.clone(), a.clone(), c.clone()]);
        assert_eq!(servers.order(), [a.clone(), b.clone(), c.clone()]);
        servers.worked(&c);
        assert_eq!(servers.order(), [c.clone(), a.clone(), b.clone()]);
        assert!(servers.replace(vec![a.clone(), b.clone()]));
        assert!(!servers.replace(vec![a.clone(), b.clone()]));
        assert_eq!(servers.order(), [a, b]);
    }
}
