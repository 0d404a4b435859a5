use serde_json::{Value, json};

use super::*;

fn cron(spec: Value, status: Value) -> CronJob {
    let mut whole = json!({"schedule": "0 * * * *", "concurrencyPolicy": "Allow", "jobTemplate": {}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let meta = json!({"name": "c", "namespace": "ns", "uid": "cron", "creationTimestamp": "2026-01-01T09:30:00Z"});
    serde_json::from_value(json!({"metadata": meta, "spec": whole, "status": status})).unwrap()
}

/// What is done at `now`, and the reasons of its events.
#[track_caller]
fn check(spec: Value, status: Value, now: &str, expect: &str) {
    let mut notes = Vec::new();
    let step = plan(&cron(spec, status), format!("2026-01-01T{now}Z").parse().unwrap(), &mut notes);
    let mut shown = match step {
        Step::Rest => "rest".to_owned(),
        Step::Wait(time) => format!("wait {}", time.as_secs()),
        Step::Start { at, replace } => format!("start {}{}", at.strftime("%H:%M"), if replace { " replace" } else { "" }),
    };
    for (_, reason, _) in notes {
        shown += &format!(" {reason}");
    }
    assert_eq!(shown, expect);
}

#[test]
fn a_job_is_started_when_its_time_has_come() {
    let started = |at: &str| json!({"lastScheduleTime": format!("2026-01-01T{at}Z")});
    check(json!({}), json!({}), "09:45:00", "wait 900");
    check(json!({}), json!({}), "10:00:01", "start 10:00");
    check(json!({}), started("10:00:00"), "10:00:02", "wait 3598");
    check(json!({}), started("10:00:00"), "13:20:00", "start 13:00");
    check(json!({"schedule": "@every 1h"}), json!({}), "12:31:00", "start 12:30");
    check(json!({"timeZone": "Asia/Kolkata", "schedule": "30 15 * * *"}), json!({}), "10:00:01", "start 10:00");
    check(json!({"suspend": true}), json!({}), "12:00:00", "rest");
    check(json!({"schedule": "* * * * *"}), started("10:00:00"), "13:00:00", "start 13:00 TooManyMissedTimes");
}

#[test]
fn what_is_too_late_or_impossible_is_told() {
    check(json!({"startingDeadlineSeconds": 600}), json!({}), "10:11:00", "wait 2940");
    check(json!({"startingDeadlineSeconds": 600}), json!({}), "10:09:00", "start 10:00");
    check(json!({"schedule": "59 23 31 2 *"}), json!({}), "10:00:00", "rest InvalidSchedule");
    check(json!({"schedule": "never"}), json!({}), "10:00:00", "rest UnparseableSchedule");
    check(json!({"timeZone": "Mars/Base"}), json!({}), "10:00:00", "rest UnknownTimeZone");
    check(json!({"schedule": "TZ=UTC 0 10 * * *"}), json!({}), "10:00:00", "start 10:00 UnsupportedSchedule");
}

#[test]
fn the_concurrency_policy_decides_about_active_jobs() {
    let active = json!({"active": [{"name": "c-1", "namespace": "ns", "uid": "u"}]});
    check(json!({"concurrencyPolicy": "Allow"}), active.clone(), "10:00:01", "start 10:00");
    check(json!({"concurrencyPolicy": "Replace"}), active.clone(), "10:00:01", "start 10:00 replace");
    check(json!({"concurrencyPolicy": "Forbid"}), active, "10:00:01", "wait 3599 JobAlreadyActive");
    let name = plan::job_name(&cron(json!({}), json!({})), "2026-01-01T10:00:00Z".parse().unwrap());
    let same = json!({"active": [{"name": name, "namespace": "ns", "uid": "u"}]});
    check(json!({"concurrencyPolicy": "Allow"}), same, "10:00:01", "wait 3599");
}

fn job(name: &str, end: &str, start: &str) -> Arc<Job> {
    let conditions = json!([{"type": end, "status": "True"}]);
    let status = json!({"conditions": conditions, "startTime": start, "completionTime": start});
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "status": status})).unwrap())
}

#[test]
fn the_oldest_finished_jobs_beyond_the_limits_go() {
    let jobs = [
        job("new", "Complete", "2026-01-01T03:00:00Z"),
        job("old", "Complete", "2026-01-01T01:00:00Z"),
        job("mid", "Complete", "2026-01-01T02:00:00Z"),
        job("bad", "Failed", "2026-01-01T02:00:00Z"),
    ];
    let names = |spec: Value| history(&cron(spec, json!({})), &jobs).iter().map(|j| j.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0})), ["old", "mid", "bad"]);
    assert_eq!(names(json!({})), [""; 0]);
}

#[test]
fn a_finished_job_leaves_the_list_and_sets_the_last_success() {
    let mut cron = cron(json!({}), json!({"active": [{"name": "j", "uid": "j"}]}));
    let mut notes = Vec::new();
    assert!(note_finished(&mut cron, &job("j", "Complete", "2026-01-01T03:00:00Z"), &mut notes));
    assert_eq!(notes[0].2, "Saw completed job: j, condition: Complete");
    let status = serde_json::to_value(cron.status.clone().unwrap()).unwrap();
    assert_eq!(status, json!({"lastSuccessfulTime": "2026-01-01T03:00:00Z"}));
    assert!(!note_finished(&mut cron, &job("j", "Complete", "2026-01-01T03:00:00Z"), &mut notes));
}

#[test]
fn a_new_job_carries_its_time() {
    let cron = cron(json!({"timeZone": "Asia/Kolkata"}), json!({}));
    let job = new_job(&cron, "2026-01-01T10:00:00Z".parse().unwrap());
    assert_eq!(job.name(), format!("c-{}", 1_767_261_600 / 60));
    assert_eq!(job.annotation("batch.kubernetes.io/cronjob-scheduled-timestamp"), Some("2026-01-01T15:30:00+05:30"));
}
