//! A compiled expression.
use crate::ast::{Expr, Id, Literal};
use crate::check::{Checked, Reference};
use crate::cost::{self, CostEstimate, Estimator};
use crate::evaluate::{self, CostLimit, Evaluation, EvaluationError, Variables};
use crate::plan::{self, Step};
use crate::types::Type;

/// A checked expression, ready to run any number of times, on any thread.
#[derive(Debug)]
pub struct Program {
    checked: Checked,
    step: Result<Step, EvaluationError>,
}

impl Program {
    pub(crate) fn of(checked: Checked) -> Self {
        let step = plan::plan(&checked);
        Self { checked, step }
    }

    /// What it evaluates to: `bool`, `string`, `dyn` ...
    pub fn output_type(&self) -> &Type {
        self.checked.of(self.checked.ast.root)
    }

    /// Why the expression can never run though it is well typed: `int('a')`, a pattern that is none. Upstream reports it when a program
    /// is made, as `program instantiation failed: ...`; every evaluation fails with it.
    pub fn defect(&self) -> Option<&EvaluationError> {
        self.step.as_ref().err()
    }

    /// The least and most it may cost, if data is as large as `sizes` says.
    pub fn estimate(&self, sizes: &dyn Estimator) -> CostEstimate {
        cost::estimate(&self.checked, sizes)
    }

    /// Whether the expression refers to the variable of the environment.
    pub fn uses(&self, variable: &str) -> bool {
        self.checked.ast.nodes.iter().enumerate().any(|(id, node)| {
            matches!(&node.expr, Expr::Ident(name) if &**name == variable)
                && matches!(self.checked.reference(id as Id), Some(Reference::Variable))
        })
    }

    /// Whether the expression reads `field`, as `x.field` or `x.?field`, of the variable `of`, or of anything where that is `None`.
    pub fn selects(&self, of: Option<&str>, field: &str) -> bool {
        let ast = &self.checked.ast;
        let is_of = |id: Id| of.is_none_or(|of| matches!(ast.expr(id), Expr::Ident(name) if &**name == of));
        ast.nodes.iter().any(|node| match &node.expr {
            Expr::Select { operand, field: name, .. } => &**name == field && is_of(*operand),
            Expr::Call { target: None, function, args } if &**function == "_?._" => match args[..] {
                [operand, name] => matches!(ast.expr(name), Expr::Literal(Literal::String(name)) if &**name == field) && is_of(operand),
                _ => false,
            },
            _ => false,
        })
    }

    /// Runs it. The value borrows from the program and from what `variables` hands out.
    pub fn evaluate<'a>(&'a self, variables: &dyn Variables<'a>, limit: CostLimit) -> Evaluation<'a> {
        match &self.step {
            Ok(step) => evaluate::evaluate(step, variables, limit),
            Err(error) => Evaluation { value: Err(error.clone()), cost: 0 },
        }
    }
}
