//! Tokens of a provider of the tests' own, over TLS.
mod configurations;
pub(crate) mod issuing;
mod mutated;
mod reload;

use std::time::{Duration, SystemTime};

use issuing::{Provider, Signer, claims};
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

async fn issuers(provider: &Provider, rest: &str) -> Issuers {
    let issuers = Issuers::start(&provider.configuration(rest), &ALGORITHMS, &["https://cluster".into()]).unwrap();
    for issuer in issuers.all.load().iter() {
        tokio::time::timeout(Duration::from_secs(60), issuer.provider.ready()).await.unwrap();
    }
    issuers
}

#[track_caller]
fn refused(judged: Option<Result<UserInfo, String>>, expected: &str) {
    match judged {
        Some(Err(error)) => assert!(error.contains(expected), "{error}"),
        other => panic!("{other:?}, not {expected}"),
    }
}

const BY_CLAIM: &str = "
  claimMappings:
    username: {claim: sub, prefix: 'p:'}
    groups: {claim: roles, prefix: 'g:'}
    uid: {claim: uid}
";

#[tokio::test]
async fn every_algorithm_is_believed_and_claims_become_a_user() {
    let provider = Provider::start().await;
    let all = Signer::all();
    provider.publish(&all.iter().collect::<Vec<_>>());
    let issuers = issuers(&provider, BY_CLAIM).await;
    for signer in &all {
        for algorithm in signer.algorithms() {
            let said = json!({"sub": "jane", "roles": ["a", "b"], "uid": "7", "jti": "x"});
            let token = signer.token(algorithm, &claims(&provider.url, said));
            let user = issuers.authenticate(&token, now()).await.unwrap().unwrap();
            assert_eq!((user.name.as_str(), user.uid.as_str()), ("p:jane", "7"), "{algorithm}");
            assert_eq!(user.groups, ["g:a", "g:b"]);
            assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=x"]);
        }
    }
    assert_eq!(provider.key_fetches(), 1, "keys are kept");
    let one = all[0].token("RS256", &claims(&provider.url, json!({"sub": "jane", "roles": "only", "uid": "7"})));
    assert_eq!(issuers.authenticate(&one, now()).await.unwrap().unwrap().groups, ["g:only"]);
    let page = issuers.page();
    assert!(page.contains("result=\"success\"} 7") || page.contains("latency_seconds_count"), "{page}");
}

const BY_EXPRESSION: &str = "
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: 'claims.exp - claims.nbf <= 86400', message: total token lifetime must not exceed 24 hours}
  claimMappings:
    username: {expression: 'claims.email_verified ? claims.email : \"nobody\"'}
    groups: {expression: 'claims.roles.split(\",\") + [claims.nested__dot__key.inner__dash__most]'}
    uid: {expression: claims.sub}
    extra:
    - {key: example.com/tenant, valueExpression: 'claims.?tenant.orValue(\"\")'}
    - {key: example.com/many, valueExpression: 'claims.many'}
  userValidationRules:
  - {expression: \"!user.username.startsWith('system:')\", message: username cannot use reserved system prefix}
  - {expression: \"user.groups.all(g, !g.startsWith('system:'))\"}
  - {expression: \"user.extra['example__dot__com__slash__many'].size() == 2\"}
";

#[tokio::test]
async fn expressions_make_the_user_and_judge_it() {
    let provider = Provider::start().await;
    let signer = Signer::rsa(0);
    provider.publish(&[&signer]);
    let issuers = issuers(&provider, BY_EXPRESSION).await;
    let say = |change: serde_json::Value| {
        let mut said = json!({
            "sub": "42", "email": "j@example.com", "email_verified": true, "hd": "example.com", "roles": "a,b", "nested.key": {"inner-most": "c"},
            "tenant": "t", "many": ["x", "", "y"], "nbf": NOW - 10,
        });
        said.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        signer.token("RS256", &claims(&provider.url, said))
    };
    let user = issuers.authenticate(&say(json!({})), now()).await.unwrap().unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("j@example.com", "42"));
    assert_eq!(user.groups, ["a", "b", "c"]);
    assert_eq!(
        (&user.extra["example.com/tenant"][..], &user.extra["example.com/many"][..]),
        (&["t".to_owned()][..], &["x".into(), "y".into()][..])
    );
    for (change, expected) in [
        (json!({"hd": "other"}), "oidc: required claim hd value does not match. Got = other, want = example.com"),
        (json!({"hd": 1}), "oidc: parse claim hd: json: cannot unmarshal number into Go value of type string"),
        (json!({"nbf": NOW - 100_000}), "failed: total token lifetime must not exceed 24 hours"),
        (
            json!({"email": "system:admin"}),
            "oidc: error evaluating user info validation rule: validation expression '!user.username.startsWith('system:')' failed: username cannot use reserved system prefix",
        ),
        (json!({"roles": "a,system:masters"}), "oidc: error evaluating user info validation rule"),
        (json!({"email": ""}), "oidc: empty username via CEL expression is not allowed"),
        (json!({"email": 3}), "username claim expression must return a string"),
        (json!({"many": [1]}), "expression must return a string or a list of strings"),
        (json!({"sub": null}), "uid claim expression must return a string"),
    ] {
        refused(issuers.authenticate(&say(change), now()).await, expected);
    }
}

#[tokio::test]
async fn nothing_but_a_good_token_opens() {
    let provider = Provider::start().await;
    let (good, other) = (Signer::rsa(0), Signer::rsa(1));
    provider.publish(&[&good]);
    let issuers = issuers(&provider, BY_CLAIM).await;
    let base = json!({"sub": "jane", "uid": "7"});
    let valid = claims(&provider.url, base.clone());
    let token = good.token("RS256", &valid);
    assert!(issuers.authenticate(&token, now()).await.unwrap().is_ok());

    let with = |field: &str, value: serde_json::Value| {
        let mut claims = valid.clone();
        claims[field] = value;
        good.token("RS256", &claims)
    };
    refused(issuers.authenticate(&with("exp", json!(NOW - 1)), now()).await, "oidc: token is expired (Token Expiry: 2027-01-15T07:59:59Z)");
    refused(issuers.authenticate(&with("exp", json!(null)), now()).await, "oidc: token is expired");
    refused(issuers.authenticate(&token, now() + Duration::from_secs(4000)).await, "oidc: token is expired");
    refused(issuers.authenticate(&with("nbf", json!(NOW + 61)), now()).await, "before the nbf (not before) time");
    assert!(issuers.authenticate(&with("nbf", json!(NOW + 59)), now()).await.unwrap().is_ok());
    refused(issuers.authenticate(&with("aud", json!("somebody")), now()).await, "oidc: expected audience \"me\" got [\"somebody\"]");
    refused(issuers.authenticate(&with("aud", json!([])), now()).await, "oidc: expected audience");
    assert!(issuers.authenticate(&with("aud", json!(["x", "me"])), now()).await.unwrap().is_ok());
    assert_eq!(issuers.authenticate(&with("iss", json!("https://elsewhere")), now()).await, None);

    let before = provider.key_fetches();
    let unsigned = issuing::compact(&json!({"alg": "none"}), &valid, b"");
    refused(issuers.authenticate(&unsigned, now()).await, "oidc: id token not signed");
    refused(issuers.authenticate(&issuing::compact(&json!({"alg": "none"}), &valid, b"x"), now()).await, "unsupported algorithm");
    refused(
        issuers.authenticate(&good.with_public_key_as_secret(&valid), now()).await,
        "signed with unsupported algorithm, expected [\"ES256\"",
    );
    refused(issuers.authenticate(&issuing::compact(&json!({"alg": "ES512"}), &valid, b"x"), now()).await, "got \"ES512\"");
    assert_eq!(provider.key_fetches(), before, "no key is fetched for these");

    // Of another's key, under the good one's name.
    refused(issuers.authenticate(&other.token_named("RS256", &valid, &good.id), now()).await, "failed to verify id token signature");
    // One signature under another algorithm's name.
    refused(issuers.authenticate(&good.token_as("RS256", "PS256", &valid), now()).await, "failed to verify id token signature");
    let mut forged: Vec<&str> = token.split('.').collect();
    let admin = issuing::part(&claims(&provider.url, json!({"sub": "admin", "uid": "7"})));
    forged[1] = &admin;
    refused(issuers.authenticate(&forged.join("."), now()).await, "failed to verify id token signature");
    let critical = good.token_with(&json!({"alg": "RS256", "crit": ["b64"], "b64": false}), &valid);
    refused(issuers.authenticate(&critical, now()).await, "unsupported crit header");
    for nonsense in ["", ".", "..", "a.b.c", "a.b.c.d", &format!("{token}.x"), &"x".repeat(100_000)] {
        assert_eq!(issuers.authenticate(nonsense, now()).await, None, "{nonsense:.20}");
    }
}

#[tokio::test]
async fn keys_are_rotated_and_nobody_makes_the_server_hammer_an_issuer() {
    let provider = Provider::start().await;
    let (old, new) = (Signer::ec256(), Signer::ec384());
    provider.publish(&[&old]);
    let issuers = Arc::new(issuers(&provider, BY_CLAIM).await);
    let valid = claims(&provider.url, json!({"sub": "jane", "uid": "7"}));
    assert!(issuers.authenticate(&old.token("ES256", &valid), now()).await.unwrap().is_ok());
    // Both hold while one replaces the other.
    provider.publish(&[&old, &new]);
    assert!(issuers.authenticate(&new.token("ES384", &valid), now()).await.unwrap().is_ok());
    assert!(issuers.authenticate(&old.token("ES256", &valid), now()).await.unwrap().is_ok());
    provider.publish(&[&new]);
    // The old one is known until keys are fetched for another reason.
    let stranger = Signer::ec256();
    refused(issuers.authenticate(&stranger.token("ES256", &valid), now()).await, "failed to verify id token signature");
    refused(issuers.authenticate(&old.token("ES256", &valid), now()).await, "failed to verify id token signature");

    let (before, started) = (provider.key_fetches(), Instant::now());
    let storm = (0..200).map(|i| {
        let (issuers, token) = (issuers.clone(), stranger.token_named("ES256", &valid, &format!("invented-{i}")));
        tokio::spawn(async move { issuers.authenticate(&token, now()).await })
    });
    for judged in futures::future::join_all(storm).await {
        refused(judged.unwrap(), "failed to verify id token signature");
    }
    let fetched = provider.key_fetches() - before;
    assert!(fetched as u64 <= 2 + started.elapsed().as_secs(), "{fetched} fetches for 200 tokens");
    let lost = claims(&provider.url, json!({"exp": 5}));
    let before = provider.key_fetches();
    refused(issuers.authenticate(&stranger.token("ES256", &lost), now()).await, "failed to verify id token signature");
    assert_eq!(provider.key_fetches(), before, "an expired token is worth no fetch");
}

#[tokio::test]
async fn who_leaves_while_keys_are_fetched_leaves_nothing_stale() {
    let provider = Provider::start().await;
    let (old, new) = (Signer::ec256(), Signer::ec256());
    provider.publish(&[&old]);
    let issuers = issuers(&provider, BY_CLAIM).await;
    let valid = claims(&provider.url, json!({"sub": "jane", "uid": "7"}));
    let token = old.token("ES256", &valid);
    assert!(futures::FutureExt::now_or_never(issuers.authenticate(&token, now())).is_none(), "the fetch takes its time");
    let fetched = async {
        while provider.key_fetches() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await; // and is taken in
    };
    tokio::time::timeout(Duration::from_secs(60), fetched).await.unwrap();
    provider.publish(&[&new]);
    assert!(issuers.authenticate(&new.token("ES256", &valid), now()).await.unwrap().is_ok(), "the new key is asked for");
}

#[tokio::test]
async fn an_issuer_that_fails_or_says_too_much_is_not_believed_and_recovers() {
    let provider = Provider::start().await;
    let signer = Signer::ec256();
    provider.publish(&[&signer]);
    let issuers = issuers(&provider, BY_CLAIM).await;
    let token = signer.token("ES256", &claims(&provider.url, json!({"sub": "jane", "uid": "7"})));
    provider.answer_keys_with(&format!("{{\"keys\":[],\"x\":\"{}\"}}", "y".repeat(2 << 20)));
    refused(issuers.authenticate(&token, now()).await, "fetching keys Get \"https://localhost:");
    provider.answer_keys_with("{\"keys\":7}");
    let mut tries = 0;
    while tries < 3 {
        match issuers.authenticate(&token, now()).await {
            Some(Err(error)) if error.contains("no list of keys") => break,
            other => refused(other, "fetching keys"),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    provider.publish(&[&signer]);
    let recovered = async {
        while issuers.authenticate(&token, now()).await.unwrap().is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), recovered).await.expect("keys are fetched again");
}

#[tokio::test]
async fn groups_may_stand_in_a_token_of_their_own() {
    let provider = Provider::start().await;
    let signer = Signer::ec256();
    provider.publish(&[&signer]);
    let issuers = issuers(&provider, BY_CLAIM).await;
    provider.serve("/groups", "secret", signer.token("ES256", &claims(&provider.url, json!({"roles": ["far"]}))));
    let elsewhere = |bearer: &str| {
        json!({"sub": "jane", "uid": "7", "_claim_names": {"roles": "s"},
            "_claim_sources": {"s": {"endpoint": format!("{}/groups", provider.url), "access_token": bearer}}})
    };
    let token = signer.token("ES256", &claims(&provider.url, elsewhere("secret")));
    let resolved = async {
        loop {
            match issuers.authenticate(&token, now()).await.unwrap() {
                Ok(user) => return user,
                Err(error) => assert!(error.contains("verifier not initialized for issuer"), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), resolved).await.unwrap().groups, ["g:far"]);
    let token = signer.token("ES256", &claims(&provider.url, elsewhere("wrong")));
    refused(
        issuers.authenticate(&token, now()).await,
        "oidc: could not expand distributed claims: while getting distributed claim \"roles\"",
    );
}
