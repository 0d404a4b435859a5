//! Bytes that somebody bent: whatever they are, they are judged and nothing panics. The seed is fixed, so a failure comes again.
use super::*;
use crate::auth::jwt::keys::KeySet;

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end.max(1)
    }

    /// Some bytes replaced, removed, doubled or moved.
    fn bend(&mut self, text: &[u8], words: &[&str]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] = self.below(256) as u8,
                1 if !bytes.is_empty() => drop(bytes.remove(at)),
                2 => {
                    let marks = b"{}[]\"':,.-_ \n\0\xff";
                    bytes.insert(at, marks[self.below(marks.len())]);
                }
                3 => bytes.truncate(at),
                4 => {
                    let end = (at + self.below(40)).min(bytes.len());
                    let copy = bytes[at.min(end)..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, copy);
                }
                _ => {
                    let word = words[self.below(words.len())];
                    bytes.splice(at..at, word.bytes());
                }
            }
        }
        bytes
    }
}

const WORDS: [&str; 12] = ["null", "1e999", "-1", "{}", "[]", "\"\"", "true", "alg", "__dot__", "&a", "*a", "\u{1F600}"];
const ROUNDS: usize = 5_000;

#[tokio::test]
async fn no_bent_token_is_believed() {
    let provider = Provider::start().await;
    let signer = Signer::ec256();
    provider.publish(&[&signer]);
    let issuers = issuers(&provider, BY_CLAIM).await;
    let valid = claims(&provider.url, json!({"sub": "jane", "uid": "7", "exp": 5}));
    let (token, header) = (signer.token("ES256", &valid), json!({"alg": "ES256", "kid": signer.id}));
    let mut random = Random(0x5eed);
    for _ in 0..ROUNDS {
        let bent = match random.below(3) {
            0 => random.bend(token.as_bytes(), &WORDS),
            // Within the parts, where base64 hides them from a blind bend.
            which => {
                let inner = if which == 1 { header.to_string() } else { valid.to_string() };
                let inner =
                    base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, random.bend(inner.as_bytes(), &WORDS));
                let parts: Vec<&str> = token.split('.').collect();
                if which == 1 {
                    [&inner, parts[1], parts[2]].join(".").into_bytes()
                } else {
                    [parts[0], &inner, parts[2]].join(".").into_bytes()
                }
            }
        };
        let bent = String::from_utf8_lossy(&bent);
        assert!(!matches!(issuers.authenticate(&bent, now()).await, Some(Ok(_))), "{bent}");
    }
    for _ in 0..ROUNDS {
        let keys = random.bend(
            json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "AQ", "y": "Ag"}, {"kty": "RSA", "n": "AAEC", "e": "AQAB"}]})
                .to_string()
                .as_bytes(),
            &WORDS,
        );
        if let (Ok(keys), Ok(token)) = (KeySet::parse(&keys), Compact::parse(&token)) {
            assert!(!keys.verifies(&token));
        }
    }
}

#[test]
fn no_bent_configuration_panics() {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {{url: 'https://a', audiences: [x]}}{BY_EXPRESSION}anonymous: {{enabled: true}}\n"
    );
    assert!(
        AuthenticationConfiguration::parse(&text).is_ok_and(|config| check(&config, &[]).is_ok()),
        "{:?}",
        AuthenticationConfiguration::parse(&text).map(|c| check(&c, &[]))
    );
    let mut random = Random(0xc0ffee);
    let mut taken = 0;
    for _ in 0..ROUNDS {
        let bent = random.bend(text.as_bytes(), &WORDS);
        if let Ok(config) = AuthenticationConfiguration::parse(&String::from_utf8_lossy(&bent)) {
            taken += usize::from(check(&config, &[]).is_ok());
        }
    }
    assert!(taken > 0, "some bends change nothing that matters");
}

#[test]
fn no_bent_order_of_authorizers_panics() {
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- {type: Node, name: node}\n- type: Webhook\n  name: a\n  webhook:\n    timeout: 3s\n    authorizedTTL: 1m\n    subjectAccessReviewVersion: v1\n    matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: Deny\n    connectionInfo: {type: KubeConfigFile, kubeConfigFile: /etc/hostname}\n    matchConditions: [{expression: \"request.user.startsWith('a')\"}]\n";
    assert!(crate::auth::config::AuthorizationConfiguration::parse(text).is_ok());
    let mut random = Random(0xbeef);
    let taken = (0..ROUNDS).filter(|_| {
        let bent = random.bend(text.as_bytes(), &WORDS);
        crate::auth::config::AuthorizationConfiguration::parse(&String::from_utf8_lossy(&bent)).is_ok()
    });
    assert!(taken.count() > 0, "some bends change nothing that matters");
}
