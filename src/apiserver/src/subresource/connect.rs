//! What a client asks of exec, attach, portforward and proxy, as the object that admission sees.
//!
//! Models pkg/apis/core PodExecOptions and its likes, which upstream decodes from the query.
use api::meta;
use api::tree::Tree;

use crate::rest::Call;

pub fn options(call: &Call, subresource: &str) -> Tree {
    let mut options = Tree::object();
    let kind = call.resource.subresource(subresource).map_or("", |sub| &*sub.kind.kind);
    meta::set_type(&mut options, "v1", kind);
    let text = |options: &mut Tree, field: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            options.set(&[field], value);
        }
    };
    match subresource {
        "exec" | "attach" => {
            for flag in ["stdin", "stdout", "stderr", "tty"] {
                if call.query.flag(flag) {
                    options.set(&[flag], true);
                }
            }
            text(&mut options, "container", call.query.get("container"));
            let command: Vec<Tree> = call.query.all("command").map(Tree::from).collect();
            if subresource == "exec" && !command.is_empty() {
                options.set(&["command"], Tree::Array(command));
            }
        }
        "portforward" => {
            let ports = call.query.all("ports").flat_map(|p| p.split(',')).filter_map(|p| p.parse::<i64>().ok()).map(Tree::from);
            let ports: Vec<Tree> = ports.collect();
            if !ports.is_empty() {
                options.set(&["ports"], Tree::Array(ports));
            }
        }
        _ => text(&mut options, "path", Some(&call.info.rest)),
    }
    options
}
