//! A file that changes while the server runs.
use super::*;

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(90), async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_changed_file_holds_once_it_is_good_and_its_issuers_answer() {
    let (one, two) = (Provider::start().await, Provider::start().await);
    let signer = Signer::ec256();
    one.publish(&[&signer]);
    two.publish(&[&signer]);
    let issuers = Arc::new(issuers(&one, BY_CLAIM).await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authentication.yaml");
    let text = one.text(BY_CLAIM);
    std::fs::write(&path, &text).unwrap();
    let counts = Arc::new(ReloadCounts::new("authentication", &text));
    let shutdown = CancellationToken::new();
    let follower = tokio::spawn({
        let (issuers, counts, path, shutdown) = (issuers.clone(), counts.clone(), path.clone(), shutdown.clone());
        async move { issuers.follow(&path, text, &counts, shutdown).await }
    });
    let token = |provider: &Provider| signer.token("ES256", &claims(&provider.url, json!({"sub": "jane", "uid": "7"})));
    let is_good = async |provider: &Provider| matches!(issuers.authenticate(&token(provider), now()).await, Some(Ok(_)));
    assert!(is_good(&one).await && !is_good(&two).await);
    // Requests go on all the while: those of an issuer that stays never fail.
    let under_load = tokio::spawn({
        let (issuers, token, shutdown) = (issuers.clone(), token(&one), shutdown.clone());
        async move {
            let mut count = 0;
            while !shutdown.is_cancelled() {
                assert!(matches!(issuers.authenticate(&token, now()).await, Some(Ok(_))), "after {count}");
                count += 1;
                tokio::task::yield_now().await;
            }
            count
        }
    });

    let both = one.text(BY_CLAIM) + two.text(BY_CLAIM).split_once("jwt:\n").unwrap().1;
    // Replaced as editors and ConfigMap volumes do it.
    std::fs::write(folder.path().join("new"), &both).unwrap();
    std::fs::rename(folder.path().join("new"), &path).unwrap();
    until("the second issuer is believed", async || is_good(&two).await).await;
    assert!(counts.page().contains("automatic_reloads_total{apiserver_id_hash=\"\",status=\"success\"} 1"), "{}", counts.page());

    for (i, bad) in
        ["kind: Pod\n".to_owned(), both.replace("audiences: [me]", "audiences: []"), both.clone() + "anonymous: {enabled: true}\n"]
            .iter()
            .enumerate()
    {
        std::fs::write(&path, bad).unwrap();
        let failures = format!("status=\"failure\"}} {}\n", i + 1);
        until("the bad file is counted", async || counts.page().contains(&failures)).await;
        assert!(is_good(&one).await && is_good(&two).await, "a bad file changes nothing");
    }
    std::fs::write(&path, one.text(BY_CLAIM)).unwrap();
    until("the second issuer is forgotten", async || !is_good(&two).await).await;
    assert_eq!(issuers.authenticate(&token(&two), now()).await, None);
    shutdown.cancel();
    follower.await.unwrap();
    assert!(under_load.await.unwrap() > 0);
}
