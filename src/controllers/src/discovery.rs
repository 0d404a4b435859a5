//! Which resources the server has, asked of the server.
//!
//! Models client-go discovery ServerPreferredResources, v1.37, over the older discovery documents, which every server has.
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroupList, APIResourceList};
use client::{ApiError, ApiResource, Client};

#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub resource: ApiResource,
    pub verbs: Vec<String>,
}

impl Served {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

#[derive(Default)]
pub(crate) struct Discovery {
    /// Each resource once, in its group's preferred version, or in the first that has it.
    pub resources: Vec<Served>,
    /// Groups and versions that did not answer.
    pub failures: Vec<(String, ApiError)>,
}

pub(crate) async fn discover(client: &Client) -> Result<Discovery, ApiError> {
    let groups: APIGroupList = client.get_path("/apis").await?;
    let mut found = Discovery::default();
    found.add("", "v1", client.get_path("/api/v1").await);
    for group in &groups.groups {
        let preferred = group.preferred_version.as_ref().map(|v| v.version.as_str());
        let mut versions: Vec<&str> = group.versions.iter().map(|v| v.version.as_str()).collect();
        // Stable: the others stay in the server's order of priority.
        versions.sort_by_key(|v| Some(*v) != preferred);
        for version in versions {
            let answer = client.get_path(&format!("/apis/{}/{version}", group.name)).await;
            found.add(&group.name, version, answer);
        }
    }
    Ok(found)
}

impl Discovery {
    fn add(&mut self, group: &str, version: &str, answer: Result<APIResourceList, ApiError>) {
        let list = match answer {
            Ok(list) => list,
            Err(error) => {
                let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
                self.failures.push((name, error));
                return;
            }
        };
        for found in list.resources {
            let known = |s: &Served| s.resource.group == group && s.resource.plural == found.name;
            if found.name.contains('/') || self.resources.iter().any(known) {
                continue;
            }
            let resource = ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                kind: found.kind,
                plural: found.name,
                namespaced: found.namespaced,
            };
            self.resources.push(Served { resource, verbs: found.verbs });
        }
    }
}
