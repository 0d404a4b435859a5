//! Clients of the API in this process.
use std::sync::Arc;

use apiserver::{ApiServer, Cache, UserInfo};
use axum::body::Bytes;
use client::{ApiResource, Client, HeldObjects, ObjectKey};

/// A client as `user`, whose informers keep no copies of what the server holds.
pub fn client(api: &ApiServer, user: UserInfo) -> Client {
    Client::within(api.local(user)).sharing(held(api))
}

/// The same for a client over something between it and the API.
pub fn held(api: &ApiServer) -> Arc<dyn HeldObjects> {
    Arc::new(Held(api.cache().clone()))
}

struct Held(Cache);

impl HeldObjects for Held {
    fn text(&self, resource: &ApiResource, key: &ObjectKey, version: &str) -> Option<Bytes> {
        let object = self.0.get(&resource.group, &resource.plural, &key.namespace, &key.name)?;
        let is_it = object.revision.to_string() == version && object.is_of_version(&resource.api_version());
        is_it.then(|| object.bytes.clone())
    }
}
