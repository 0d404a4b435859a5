//! `X-Remote-*`: who a passed-on request is from. A backend believes them of who shows the front proxy's certificate.
//!
//! Models client-go/transport/round_trippers.go SetAuthProxyHeaders.
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::UserInfo;

const PREFIX: &str = "x-remote-";

/// Puts `user` in the place of whatever the client said there.
pub fn set(headers: &mut HeaderMap, user: &UserInfo) {
    let foreign: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
    append(headers, "x-remote-user", &user.name);
    if !user.uid.is_empty() {
        append(headers, "x-remote-uid", &user.uid);
    }
    for group in &user.groups {
        append(headers, "x-remote-group", group);
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", escape(key));
        for value in values {
            append(headers, &name, value);
        }
    }
}

/// Values that no header can hold are left out: a user without a group is less than the user, never more.
fn append(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes())) {
        headers.append(name, value);
    }
}

fn escape(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_what_a_client_claims_is_passed_on() {
        let mut headers = HeaderMap::new();
        for name in ["x-remote-user", "X-Remote-Group", "x-remote-extra-a", "x-remote-uid"] {
            headers.append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_static("root"));
        }
        let mut user = UserInfo::new("jane", &["dev", "ops"]);
        user.extra.insert("example.com/scope".to_owned(), vec!["a".to_owned(), "b\n".to_owned()]);
        set(&mut headers, &user);
        let mut all: Vec<(String, String)> =
            headers.iter().map(|(k, v)| (k.to_string(), v.to_str().unwrap_or_default().to_owned())).collect();
        all.sort();
        let pairs = [("x-remote-extra-example.com%2fscope", "a"), ("x-remote-group", "dev"), ("x-remote-group", "ops"), ("x-remote-user", "jane")];
        assert_eq!(all, pairs.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
