//! An API server of a few objects that never change, for tests of what a controller remembers.
use std::collections::BTreeMap;
use std::convert::Infallible;

use client::{Client, Informer, Kind};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::service_fn;

/// Lists these objects, by the plural of their kind; its watches end at once, and whatever else is asked for is not there.
pub(crate) fn client(objects: &[(&str, &[Value])]) -> Client {
    let lists: BTreeMap<String, Vec<Value>> = objects.iter().map(|(plural, items)| ((*plural).to_owned(), items.to_vec())).collect();
    Client::from_service(service_fn(move |request: Request<_>| {
        let (uri, is_read) = (request.uri(), *request.method() == Method::GET);
        let plural = uri.path().rsplit('/').next().unwrap_or_default();
        let (status, answer) = if uri.query().is_some_and(|query| query.contains("watch=true")) {
            (StatusCode::OK, String::new())
        } else if is_read {
            let items = lists.get(plural).map_or(&[][..], Vec::as_slice);
            (StatusCode::OK, json!({"metadata": {"resourceVersion": "1"}, "items": items}).to_string())
        } else {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404});
            (StatusCode::NOT_FOUND, status.to_string())
        };
        let response = Response::builder().status(status).body(Full::new(answer.into())).expect("its parts are good");
        std::future::ready(Ok::<_, Infallible>(response))
    }))
}

pub(crate) async fn informer<K: Kind>(client: &Client) -> Informer<K> {
    let informer = Informer::builder(client).start();
    informer.synced().await;
    informer
}
