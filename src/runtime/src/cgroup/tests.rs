use super::*;

#[test]
fn keyed_values_need_the_whole_key() {
    let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
    assert_eq!(keyed(text, "oom_kill"), Some(3));
    assert_eq!(keyed(text, "oom"), None);
}
