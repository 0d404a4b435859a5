//! From the socket on: who is believed, what they may, and what the audit log keeps of those who are not.
use std::net::SocketAddr;

use serde_json::json;

use super::*;
use crate::audit::{Audit, Options, Rotation};
use crate::auth::config::{Anonymous, AuthenticationConfiguration};
use crate::auth::jwt::tests::issuing::{Provider, Signer};
use crate::auth::jwt::{ALGORITHMS, Issuers};
use crate::pipeline;

struct World {
    server: ApiServer,
    _fixture: Fixture,
    provider: Provider,
    signer: Signer,
    folder: tempfile::TempDir,
}

const OWN: &str = "https://kubernetes.default.svc";

async fn world(anonymous: Anonymous) -> World {
    let (f, provider, signer, folder) = (fixture().await, Provider::start().await, Signer::ec256(), tempfile::tempdir().unwrap());
    provider.publish(&[&signer]);
    let config: AuthenticationConfiguration =
        provider.configuration("  claimMappings: {username: {claim: sub, prefix: ''}, groups: {claim: groups, prefix: ''}}\n");
    let issuers = Arc::new(Issuers::start(&config, &ALGORITHMS, &[OWN.into()]).unwrap());
    let tokens = pki::ServiceAccountSigner::load_or_create(&folder.path().join("key"), OWN).unwrap();
    let parts = f.server.0.parts.clone();
    let authentication = Authentication::new(parts.cache.clone(), tokens.verifier()).with_issuers(issuers).with_anonymous(anonymous);
    let (policy, log) = (folder.path().join("policy"), folder.path().join("audit.log"));
    std::fs::write(&policy, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n").unwrap();
    let audit = Audit::load(&Options { policy, log: Some(log), rotation: Rotation::default(), webhook: None }).unwrap();
    let authorizer = Arc::new(Authorization::new(&parts.cache));
    let parts = Parts { authenticator: Arc::new(authentication), authorizer, audit: Some(Arc::new(audit)), ..parts };
    World { server: ApiServer::new(Config::default(), parts), _fixture: f, provider, signer, folder }
}

impl World {
    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let peer: SocketAddr = "192.0.2.7:1234".parse().unwrap();
        let response = pipeline::from_socket(self.server.clone(), Arc::default(), peer, request.body(Body::empty()).unwrap()).await;
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { code, headers, bytes: response.into_body().collect().await.unwrap().to_bytes() }
    }

    fn token(&self, more: serde_json::Value) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({"iss": self.provider.url, "aud": "me", "exp": now + 600, "sub": "jane"});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("Bearer {}", self.signer.token("ES256", &claims))
    }
}

#[tokio::test]
async fn a_token_of_another_issuer_is_a_user_with_that_users_rights() {
    let w = world(Anonymous::default()).await;
    let ready = async {
        while w.ask("/version", &[("authorization", &w.token(json!({})))]).await.code == 401 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), ready).await.expect("the issuer's keys");
    let jane = w.token(json!({}));
    let refused = w.ask(MAPS, &[("authorization", &jane)]).await;
    refused.failed(
        403,
        "Forbidden",
        "configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\"",
    );
    let masters = w.token(json!({"groups": ["system:masters"]}));
    w.ask(MAPS, &[("authorization", &masters)]).await.ok();
    // Nobody's claims but those of a verified token count.
    let mut stolen = jane.clone();
    stolen.replace_range(stolen.len() - 4.., "AAAA");
    for (what, header) in
        [("bent", stolen), ("expired", w.token(json!({"exp": 5}))), ("of another audience", w.token(json!({"aud": "vault"})))]
    {
        let answer = w.ask(MAPS, &[("authorization", &header)]).await;
        assert_eq!((answer.code, answer.headers["www-authenticate"].to_str().unwrap()), (401, "Bearer"), "{what}");
        answer.failed(401, "Unauthorized", "Unauthorized");
    }
    // Who acts as somebody needs a right to it, whoever vouches for him.
    let acting = w.ask(MAPS, &[("authorization", &jane), ("impersonate-user", "admin"), ("impersonate-group", "system:masters")]).await;
    assert_eq!(acting.code, 403);
}

#[tokio::test]
async fn those_who_show_nothing_get_as_far_as_the_file_says() {
    let w = world(Anonymous { enabled: true, paths: vec!["/livez".into(), "/healthz".into()] }).await;
    assert_eq!(w.ask("/cacerts", &[]).await.code, 200);
    assert_ne!(w.ask("/livez", &[]).await.code, 401);
    for path in ["/version", MAPS, "/livez/ping"] {
        assert_eq!(w.ask(path, &[]).await.code, 401, "{path}");
    }
    assert_eq!(w.ask("/livez", &[("authorization", "Bearer nonsense")]).await.code, 401, "a bad token is not nothing");
    let closed = world(Anonymous { enabled: false, paths: Vec::new() }).await;
    assert_eq!((closed.ask("/livez", &[]).await.code, closed.ask("/cacerts", &[]).await.code), (401, 200));
}

#[tokio::test]
async fn refusals_are_in_the_audit_log() {
    let w = world(Anonymous { enabled: false, paths: Vec::new() }).await;
    w.ask(&format!("{MAPS}/a"), &[("authorization", "Bearer wrong")]).await;
    w.ask(MAPS, &[]).await;
    w.ask(MAPS, &[("authorization", "Basic YTpi")]).await;
    let text = std::fs::read_to_string(w.folder.path().join("audit.log")).unwrap();
    assert!(!text.contains("wrong"), "no token is kept");
    let events: Vec<Tree> = text.lines().map(|line| Tree::from_json(line.as_bytes()).unwrap()).collect();
    let shown: Vec<String> = events
        .iter()
        .map(|e| {
            let code = e.at(&["responseStatus", "code"]).and_then(Tree::as_i64).unwrap();
            format!(
                "{} {} {} {code} {}",
                e.str_at(&["stage"]),
                e.str_at(&["verb"]),
                e.str_at(&["objectRef", "name"]),
                e.str_at(&["responseStatus", "message"])
            )
        })
        .collect();
    let expected = [
        "ResponseStarted get a 401 Authentication failed, attempted: bearer",
        "ResponseStarted list  401 Authentication failed, no credentials provided",
        "ResponseStarted list  401 Authentication failed, attempted: basic",
    ];
    assert_eq!(shown, expected);
    assert_eq!((events[0].get("user"), events[0].array_at(&["sourceIPs"])), (Some(&Tree::object()), &[Tree::from("192.0.2.7")][..]));
}
