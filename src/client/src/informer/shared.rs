//! One informer for each kind and process.
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::{Informer, InformerBuilder};
use crate::client::Client;
use crate::object::Kind;

/// Informers over whole collections, each started when first asked for, and kept.
#[derive(Clone)]
pub struct SharedInformers {
    client: Client,
    informers: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send>>>>,
}

impl SharedInformers {
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone(), informers: Arc::default() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The process's informer of this kind.
    pub fn get<K: Kind>(&self) -> Informer<K> {
        self.get_with(|builder| builder)
    }

    /// As [`Self::get`]; `build` has its say only if nobody has asked for this kind before. What it projects away is
    /// missing for everybody, so this is for whoever owns the process.
    pub fn get_with<K: Kind>(&self, build: impl FnOnce(InformerBuilder<K>) -> InformerBuilder<K>) -> Informer<K> {
        let mut informers = self.informers.lock().expect("starting an informer does not panic");
        let informer = informers
            .entry(TypeId::of::<K>())
            .or_insert_with(|| Box::new(build(Informer::builder(&self.client)).start()));
        informer.downcast_ref::<Informer<K>>().expect("kept under the id of its type").clone()
    }
}
