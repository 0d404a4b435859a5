//! Whether a webhook is asked about a request: its match conditions, all of which must hold.
//!
//! Models k8s.io/apiserver/pkg/authorization/cel.
use std::collections::BTreeSet;
use std::sync::LazyLock;

use api::field_error::{FieldError, Path};
use api::tree::Tree;
use cel::{CostLimit, Declared, Environment, ObjectType, Program, Type, Value, Version};

const CONDITIONS_MAX: usize = 64;

static SPEC: LazyLock<Declared> = LazyLock::new(spec);
static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| Environment::base(Version::CURRENT).with_variable("request", SPEC.clone()));

fn object<const N: usize>(name: &str, fields: [(&str, Declared); N]) -> Declared {
    Declared::object(ObjectType::new(name, fields.map(|(name, of)| (Box::from(name), of, false))))
}

fn spec() -> Declared {
    let (text, texts) = (Declared::string, || Declared::list(Declared::string()));
    let requirement = || object("kubernetes.SelectorRequirement", [("key", text()), ("operator", text()), ("values", texts())]);
    let selector = |name: &str| object(name, [("rawSelector", text()), ("requirements", Declared::list(requirement()))]);
    let resource = object(
        "kubernetes.ResourceAttributes",
        [
            ("namespace", text()),
            ("verb", text()),
            ("group", text()),
            ("version", text()),
            ("resource", text()),
            ("subresource", text()),
            ("name", text()),
            ("fieldSelector", selector("kubernetes.FieldSelectorAttributes")),
            ("labelSelector", selector("kubernetes.LabelSelectorAttributes")),
        ],
    );
    object(
        "kubernetes.SubjectAccessReviewSpec",
        [
            ("resourceAttributes", resource),
            ("nonResourceAttributes", object("kubernetes.NonResourceAttributes", [("path", text()), ("verb", text())])),
            ("user", text()),
            ("groups", texts()),
            ("extra", Declared::map(texts())),
            ("uid", text()),
        ],
    )
}

#[derive(Debug, Default)]
pub struct MatchConditions(Vec<(String, Program)>);

impl MatchConditions {
    pub fn compile(conditions: &[Tree], root: &Path, errors: &mut Vec<FieldError>) -> Self {
        if conditions.len() > CONDITIONS_MAX {
            errors.push(FieldError::too_many(root, conditions.len(), CONDITIONS_MAX));
            return Self::default();
        }
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for (i, condition) in conditions.iter().enumerate() {
            let path = root.index(i);
            let (text, at) = (condition.str_at(&["expression"]), path.child("expression"));
            if text.trim().is_empty() {
                errors.push(FieldError::required(at, ""));
            } else if !seen.insert(text) {
                errors.push(FieldError::duplicate(at, text));
            } else {
                match program(text, &at) {
                    Ok(program) => all.push((text.to_owned(), program)),
                    Err(error) => errors.push(error),
                }
            }
        }
        Self(all)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `spec` has every text of the review, empty ones too. One that does not hold decides, whatever failed before it.
    pub fn hold(&self, spec: &Tree) -> Result<bool, String> {
        let mut errors = Vec::new();
        for (text, program) in &self.0 {
            let variables = [("request", Value::read(spec, &SPEC))];
            match program.evaluate(&variables.as_slice(), CostLimit::PER_CALL).value {
                Err(error) => errors.push(format!("cel evaluation error: expression '{text}' resulted in error: {error}")),
                Ok(value) if value.as_bool() == Some(false) => return Ok(false),
                Ok(_) => {}
            }
        }
        if errors.is_empty() { Ok(true) } else { Err(crate::status::aggregate(&errors)) }
    }
}

fn program(text: &str, at: &Path) -> Result<Program, FieldError> {
    let program = ENVIRONMENT.compile(text).map_err(|issues| FieldError::invalid(at, text, format!("compilation failed: {issues}")))?;
    if *program.output_type() != Type::Bool {
        return Err(FieldError::invalid(at, text, format!("must evaluate to bool but got {}", program.output_type())));
    }
    match program.defect() {
        Some(defect) => Err(FieldError::internal(at, format!("program instantiation failed: {defect}"))),
        None => Ok(program),
    }
}
