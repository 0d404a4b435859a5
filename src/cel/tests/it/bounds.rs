//! Input that is deep, long or dear is refused or stopped, and nothing overflows a thread's stack.
use cel::{CostLimit, Environment, Fault, Value, Version};

fn environment() -> Environment {
    Environment::base(Version::CURRENT)
}

fn refused(text: &str) -> String {
    environment().compile(text).map(|_| ()).expect_err("too deep").to_string()
}

#[test]
fn what_nests_too_deep_is_refused() {
    for text in [
        format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000)),
        "[".repeat(10_000),
        "{1:".repeat(10_000),
        format!("a{}", ".b".repeat(100_000 / 2 - 1)),
        format!("1{}", "+1".repeat(20_000)),
        format!("{}1", "!(".repeat(5_000)),
        format!("{}1", "true ? 1 : ".repeat(5_000)),
        format!("a{}", "[0]".repeat(10_000)),
        "f(".repeat(10_000),
    ] {
        let message = refused(&text);
        assert!(message.contains("recursion"), "{message}");
    }
    assert!(refused(&"a".repeat(100_001)).contains("expression code point size exceeds limit: size: 100001, limit 100000"));
}

#[test]
fn what_is_deep_but_allowed_runs_on_a_small_stack() {
    let text = format!("{}1{}", "[".repeat(248), "]".repeat(248));
    let program = environment().compile(&text).expect("248 is allowed");
    let none: [(&str, Value); 0] = [];
    assert!(program.evaluate(&none.as_slice(), CostLimit::PER_CALL).value.is_ok());
    let text = format!("{}true{}", "!(".repeat(240), ")".repeat(240));
    assert!(environment().compile(&text).expect("240 is allowed").evaluate(&none.as_slice(), CostLimit::PER_CALL).value.is_ok());
}

#[test]
fn an_evaluation_ends_at_its_cost_limit() {
    let text = "[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, \
                [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, a + b + c + d + e + f > 0))))))";
    let program = environment().compile(text).expect("it compiles");
    let none: [(&str, Value); 0] = [];
    let evaluation = program.evaluate(&none.as_slice(), CostLimit(10_000));
    let error = evaluation.value.expect_err("it is too dear");
    assert_eq!(error.fault, Fault::CostLimit);
    assert_eq!(error.to_string(), "operation cancelled: actual cost limit exceeded");
    assert!(evaluation.cost > 10_000 && evaluation.cost < 10_100);
}
