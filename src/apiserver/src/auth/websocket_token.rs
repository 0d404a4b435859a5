//! A bearer token as one of the subprotocols that a WebSocket offers: browsers can send no other header.
//!
//! Models k8s.io/apiserver/pkg/authentication/request/websocket/protocol.go.
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};

const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// The token, and the subprotocols without it: there must be another, which the server answers. `Err`: what was offered is none.
pub fn take(headers: &HeaderMap) -> Result<Option<(String, HeaderValue)>, &'static str> {
    if !is_websocket(headers) {
        return Ok(None);
    }
    let (mut token, mut others) = (None, Vec::new());
    let texts = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    for protocol in texts.flat_map(|text| text.split(',')).map(str::trim) {
        let Some(encoded) = protocol.strip_prefix(PREFIX) else {
            others.push(protocol);
            continue;
        };
        if token.is_some() {
            return Err("multiple base64.bearer.authorization tokens specified");
        }
        let decoded = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| "invalid base64.bearer.authorization token encoding")?;
        token = Some(String::from_utf8(decoded).map_err(|_| "invalid base64.bearer.authorization token")?);
    }
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(None) };
    if others.is_empty() {
        return Err("missing additional subprotocol");
    }
    let others = HeaderValue::from_str(&others.join(",")).map_err(|_| "invalid subprotocol")?;
    Ok(Some((token, others)))
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let is_upgrade = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut is_upgrade = is_upgrade.flat_map(|text| text.split(',')).map(str::trim);
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && is_upgrade.any(|word| word.eq_ignore_ascii_case("upgrade"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(protocols: &[&str]) -> Result<Option<(String, String)>, &'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        for protocol in protocols {
            headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocol).unwrap());
        }
        take(&headers).map(|found| found.map(|(token, others)| (token, others.to_str().unwrap().to_owned())))
    }

    #[test]
    fn a_token_is_taken_out_of_what_is_offered() {
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode("my-token"));
        let found = Ok(Some(("my-token".to_owned(), "v4.channel.k8s.io,v5.channel.k8s.io".to_owned())));
        assert_eq!(taken(&["v4.channel.k8s.io", &token, "v5.channel.k8s.io"]), found);
        assert_eq!(taken(&[&format!("v4.channel.k8s.io , {token},v5.channel.k8s.io")]), found);
        assert_eq!(taken(&["v4.channel.k8s.io"]), Ok(None));
        assert_eq!(taken(&[PREFIX, "v4.channel.k8s.io"]), Ok(None));
        assert_eq!(taken(&[&token]), Err("missing additional subprotocol"));
        assert_eq!(taken(&[&token, &token, "x"]), Err("multiple base64.bearer.authorization tokens specified"));
        assert_eq!(taken(&[&format!("{PREFIX}***"), "x"]), Err("invalid base64.bearer.authorization token encoding"));
        assert_eq!(taken(&[&format!("{PREFIX}_w"), "x"]), Err("invalid base64.bearer.authorization token"));
        let mut plain = HeaderMap::new();
        plain.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(&format!("{token},x")).unwrap());
        assert_eq!(take(&plain).unwrap(), None);
    }
}
