use super::*;

#[test]
fn aggregated_roles_are_the_sum_of_what_they_select() {
    let roles = with_aggregates(policy());
    let rules = |name: &str| {
        let role = roles.iter().find(|r| api::meta::kind(r) == "ClusterRole" && api::meta::name(r) == name).unwrap();
        rules::parse(role.array_at(&["rules"]))
    };
    let (view, edit, admin) = (rules("view"), rules("edit"), rules("admin"));
    assert!(!view.is_empty());
    assert!(rules::uncovered(&edit, &view).is_empty() && rules::uncovered(&admin, &edit).is_empty());
    assert!(!rules::uncovered(&view, &edit).is_empty() && !rules::uncovered(&edit, &admin).is_empty());
}

#[test]
fn reconciling_adds_what_is_missing_and_takes_nothing_away() {
    let desired = policy().iter().find(|r| api::meta::name(r) == "system:discovery").unwrap();
    assert!(merged(desired.clone(), desired).is_none());
    let mut less = desired.clone();
    less.set(&["rules"], Tree::Array(Vec::new()));
    less.set(&["metadata", "labels"], Tree::object());
    assert_eq!(merged(less.clone(), desired).as_ref().map(|r| r.array_at(&["rules"])), Some(desired.array_at(&["rules"])));
    api::meta::set_annotation(&mut less, AUTO_UPDATE, "false");
    assert!(merged(less, desired).is_none());
    let mut more = desired.clone();
    push(&mut more, "rules", &Tree::object());
    assert!(merged(more, desired).is_none());
}
