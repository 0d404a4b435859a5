//! What a budget says to an eviction. Models checkAndDecrement and canIgnorePDB of eviction.go.
use api::meta;
use api::tree::Tree;

use crate::status::Status;

/// Upstream's MaxDisruptedPodSize.
const DISRUPTED_PODS_MAX: usize = 2000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const CAUSE: &str = "DisruptionBudget";

fn number(tree: &Tree, path: &[&str]) -> i64 {
    tree.at(path).and_then(Tree::as_i64).unwrap_or(0)
}

/// Pods that do not run, or are going anyway, disrupt nothing.
pub(super) fn is_needed(pod: &Tree) -> bool {
    !matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed" | "Pending") && meta::deletion_timestamp(pod).is_none()
}

pub(super) fn may_become_ready(pod: &Tree) -> bool {
    !matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed") && meta::deletion_timestamp(pod).is_none()
}

/// Whether the eviction of a pod that is not ready takes nothing from its budget.
pub(super) fn spares(budget: &Tree, pod: &Tree) -> bool {
    let conditions = pod.array_at(&["status", "conditions"]);
    if conditions.iter().any(|c| c.str_at(&["type"]) == "Ready" && c.str_at(&["status"]) == "True") {
        return false;
    }
    let desired = number(budget, &["status", "desiredHealthy"]);
    let enough = number(budget, &["status", "currentHealthy"]) >= desired && desired > 0;
    budget.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow" || enough
}

/// The client should try again.
pub(super) fn busy(name: &str) -> Status {
    let cause = format!("The disruption budget {name} is still being processed by the server.");
    Status::too_many_requests(REFUSED, 10).with_cause(CAUSE, cause, "")
}

fn condition(budget: &Tree) -> Option<&Tree> {
    budget.array_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == "DisruptionAllowed")
}

/// Why nothing is allowed. The counts are not to be trusted where the controller could not count.
fn why_not(budget: &Tree) -> String {
    let name = meta::name(budget);
    let (desired, healthy) = (number(budget, &["status", "desiredHealthy"]), number(budget, &["status", "currentHealthy"]));
    let told = condition(budget).filter(|c| c.str_at(&["status"]) == "False" && !c.str_at(&["message"]).is_empty());
    let (reason, message) = told.map_or(("", ""), |c| (c.str_at(&["reason"]), c.str_at(&["message"])));
    match told {
        Some(_) if reason == "SyncFailed" => {
            format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}")
        }
        _ if healthy <= desired => format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"),
        Some(_) => format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {message}"),
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

/// The budget with one disruption less, `pod`'s, noted at `now`.
pub(super) fn decremented(budget: &Tree, pod: &str, now: String) -> Result<Tree, Status> {
    let name = meta::name(budget);
    if number(budget, &["status", "observedGeneration"]) < meta::generation(budget) {
        return Err(busy(name));
    }
    let forbidden = |why: &str, cause: &str| {
        let cause = format!("The disruption budget {name} does not allow evicting pods currently: {cause}");
        Err(Status::forbidden("policy", "poddisruptionbudget", name, why).with_cause(CAUSE, cause, ""))
    };
    let allowed = number(budget, &["status", "disruptionsAllowed"]);
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative", "pdb disruptions allowed is negative");
    }
    if budget.at(&["status", "disruptedPods"]).and_then(Tree::as_object).is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return forbidden(why, "too many pending evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(Status::too_many_requests(REFUSED, 0).with_cause(CAUSE, why_not(budget), ""));
    }
    let mut budget = budget.clone();
    budget.set(&["status", "disruptionsAllowed"], allowed - 1);
    if allowed == 1 {
        disallow(&mut budget, &now);
    }
    budget.set(&["status", "disruptedPods", pod], now);
    Ok(budget)
}

/// UpdateDisruptionAllowedCondition, where the last disruption has been taken.
fn disallow(budget: &mut Tree, now: &str) {
    let since = condition(budget).filter(|c| c.str_at(&["status"]) == "False").map(|c| c.str_at(&["lastTransitionTime"]).to_owned());
    let mut conditions = budget.array_at(&["status", "conditions"]).to_vec();
    conditions.retain(|c| c.str_at(&["type"]) != "DisruptionAllowed");
    let mut new = Tree::object();
    new.set(&["type"], "DisruptionAllowed");
    new.set(&["status"], "False");
    new.set(&["reason"], "InsufficientPods");
    new.set(&["message"], "");
    new.set(&["lastTransitionTime"], since.unwrap_or_else(|| now.to_owned()));
    new.set(&["observedGeneration"], number(budget, &["status", "observedGeneration"]));
    conditions.push(new);
    budget.set(&["status", "conditions"], Tree::Array(conditions));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(status: &str) -> Tree {
        let text = format!(r#"{{"metadata":{{"name":"b","generation":2}},"spec":{{}},"status":{status}}}"#);
        Tree::from_json(text.as_bytes()).unwrap()
    }

    #[track_caller]
    fn check(status: &str, code: u16, cause: &str) {
        let refused = decremented(&budget(status), "p", "now".to_owned()).unwrap_err();
        assert_eq!(refused.http_code().as_u16(), code);
        assert_eq!(refused.to_tree().array_at(&["details", "causes"])[0].str_at(&["message"]), cause);
    }

    #[test]
    fn a_refusal_names_its_cause() {
        check(r#"{"observedGeneration":1,"disruptionsAllowed":1}"#, 429, "The disruption budget b is still being processed by the server.");
        let counts = r#""observedGeneration":2,"disruptionsAllowed":0,"desiredHealthy":3"#;
        check(&format!(r#"{{{counts},"currentHealthy":2}}"#), 429, "The disruption budget b needs 3 healthy pods and has 2 currently");
        let failed = r#""conditions":[{"type":"DisruptionAllowed","status":"False","reason":"SyncFailed","message":"why"}]"#;
        let text = "The disruption budget b does not allow evicting pods currently because it failed sync: why";
        check(&format!("{{{counts},{failed}}}"), 429, text);
        check(&format!(r#"{{{counts},"currentHealthy":4}}"#), 429, "The disruption budget b does not allow evicting pods currently");
        let text = "The disruption budget b does not allow evicting pods currently: pdb disruptions allowed is negative";
        check(r#"{"observedGeneration":2,"disruptionsAllowed":-1}"#, 403, text);
    }

    #[test]
    fn the_last_disruption_turns_the_condition() {
        let status = |allowed: i64| format!(r#"{{"observedGeneration":2,"disruptionsAllowed":{allowed},
            "conditions":[{{"type":"DisruptionAllowed","status":"True","lastTransitionTime":"then"}}]}}"#);
        let taken = |allowed| {
            let budget = decremented(&budget(&status(allowed)), "p", "now".to_owned()).unwrap();
            let condition = &budget.array_at(&["status", "conditions"])[0];
            assert_eq!(budget.str_at(&["status", "disruptedPods", "p"]), "now");
            (condition.str_at(&["status"]).to_owned(), condition.str_at(&["lastTransitionTime"]).to_owned())
        };
        assert_eq!(taken(2), ("True".to_owned(), "then".to_owned()));
        assert_eq!(taken(1), ("False".to_owned(), "now".to_owned()));
    }

    #[test]
    fn an_unready_pod_is_spared_where_enough_are_healthy_or_the_policy_says_so() {
        let pod = |ready: &str| Tree::from_json(format!(r#"{{"status":{{"conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#).as_bytes()).unwrap();
        let healthy = budget(r#"{"currentHealthy":2,"desiredHealthy":2}"#);
        assert!(spares(&healthy, &pod("False")) && !spares(&healthy, &pod("True")));
        let mut ill = budget(r#"{"currentHealthy":1,"desiredHealthy":2}"#);
        assert!(!spares(&ill, &pod("False")) && !spares(&budget("{}"), &pod("False")));
        ill.set(&["spec", "unhealthyPodEvictionPolicy"], "AlwaysAllow");
        assert!(spares(&ill, &pod("False")));
    }
}
