use super::*;

fn tree(yaml: &str) -> Tree {
    serde_saphyr::from_str(yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

#[track_caller]
fn compare(errors: &Errors, expected: &[&str]) {
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
}

/// Of an indexed job with five completions, suspended or not.
#[track_caller]
fn status(old: &str, new: &str, expected: &[&str]) {
    let job = |status: &str| tree(&format!("{{spec: {{completionMode: Indexed, completions: 5, parallelism: 2}}, status: {{{status}}}}}"));
    let mut errors = Errors::new();
    job_status::check(&mut errors, &job(new), &job(old));
    compare(&errors, expected);
}

const COMPLETE: &str = "conditions: [{type: SuccessCriteriaMet, status: 'True'}, {type: Complete, status: 'True'}]";
const START: &str = "startTime: '2026-01-01T00:00:00Z'";
const END: &str = "completionTime: '2026-01-01T00:01:00Z'";

#[test]
fn a_job_ends_in_steps_and_stays_ended() {
    let done = format!("{START}, {END}, {COMPLETE}");
    status(START, &done, &[]);
    status(&done, &done, &[]);
    status(
        START,
        &format!("{START}, {COMPLETE}"),
        &["status.completionTime: Required value: completionTime is required for Complete jobs"],
    );
    status(
        &done,
        &format!("{START}, {END}"),
        &[
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            "status.completionTime: Invalid value: \"2026-01-01T00:01:00Z\": cannot set completionTime when there is no Complete=True condition",
        ],
    );
    status(
        START,
        &format!("{START}, conditions: [{{type: Failed, status: 'True'}}]"),
        &["status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition"],
    );
    status(START, &format!("{done}, active: 1"), &["status.active: Invalid value: 1: active>0 is invalid for finished job"]);
}

#[test]
fn counts_grow_and_indexes_are_readable() {
    status(
        "succeeded: 2, failed: 1",
        "succeeded: 1",
        &[
            "status.failed: Invalid value: 0: cannot decrease the failed counter",
            "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter",
        ],
    );
    status("", "ready: 1", &["status.ready: Invalid value: 1: cannot set more ready pods than active"]);
    status(
        "",
        "completedIndexes: '7'",
        &["status.completedIndexes: Invalid value: \"7\": error parsing completedIndexes: too large index: \"7\""],
    );
    status(
        "",
        "uncountedTerminatedPods: {succeeded: [a], failed: [a]}",
        &["status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\""],
    );
    status(
        START,
        "startTime: '2026-01-02T00:00:00Z'",
        &["status.startTime: Invalid value: \"2026-01-02T00:00:00Z\": field is immutable for unsuspended job once set"],
    );
}

#[track_caller]
fn policy(spec: &str, expected: &[&str]) {
    let mut errors = Errors::new();
    policies::check(&mut errors, &tree(&format!("{{template: {{spec: {{containers: [{{name: a}}]}}}}, {spec}}}")), &SPEC);
    compare(&errors, expected);
}

#[test]
fn policies_are_checked() {
    let rule = |rule: &str| format!("podFailurePolicy: {{rules: [{{{rule}}}]}}");
    policy(&rule("action: FailJob, onExitCodes: {operator: In, values: [1, 2], containerName: a}"), &[]);
    policy(
        &rule("action: FailIndex, onPodConditions: [{type: DisruptionTarget, status: 'True'}]"),
        &["spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"],
    );
    policy(
        &rule("action: Stop, onExitCodes: {operator: In, values: [2, 0], containerName: b}"),
        &[
            "spec.podFailurePolicy.rules[0].action: Unsupported value: \"Stop\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
            "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"b\": must be one of the container or initContainer names in the pod template",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0]: must be ordered",
        ],
    );
    policy(
        &rule("action: Count"),
        &["spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"],
    );
    let indexed = |rules: &str| format!("completionMode: Indexed, completions: 5, successPolicy: {{rules: {rules}}}");
    policy(&indexed("[{succeededIndexes: '0-2', succeededCount: 2}]"), &[]);
    policy(
        &indexed("[{succeededIndexes: '0-2', succeededCount: 4}, {}]"),
        &[
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of indexes in the specified succeededIndexes field)",
            "spec.successPolicy.rules[1]: Required value: at least one of succeededCount or succeededIndexes must be specified",
        ],
    );
}

#[track_caller]
fn template(old_suspend: bool, status: &str, new_pod: &str, is_allowed: bool) {
    let job = |pod: &str, status: &str| {
        tree(&format!("{{spec: {{suspend: {old_suspend}, template: {{spec: {{{pod}}}}}}}, status: {{{status}}}}}"))
    };
    let mut errors = Errors::new();
    template_immutable(&mut errors, &job(new_pod, ""), &job("containers: [{name: a, image: x}]", status));
    assert_eq!(errors.is_empty(), is_allowed, "{errors:?}");
}

#[test]
fn the_template_of_a_suspended_job_without_pods_may_change_a_little() {
    let resources = "containers: [{name: a, image: x, resources: {requests: {cpu: 1}}}], nodeSelector: {a: b}";
    let suspended = "conditions: [{type: Suspended, status: 'True'}]";
    template(true, "", resources, true);
    template(true, &format!("{START}, {suspended}"), resources, true);
    template(true, &format!("{suspended}, active: 1"), resources, false);
    template(true, START, resources, false);
    template(false, "", resources, false);
    template(true, "", "containers: [{name: a, image: y}]", false);
}
