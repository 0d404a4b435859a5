//! What an expression may cost, before it runs.

/// The least and the most that evaluating may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostEstimate {
    pub min: u64,
    pub max: u64,
}

/// The least and the most elements, characters or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeEstimate {
    pub min: u64,
    pub max: u64,
}

/// How large data may be.
pub trait Estimator {
    /// The size of what stands at `path`: the variable's name first, then fields, `@items`, `@values`, `@keys`. `None` is unknown.
    fn size(&self, path: &[&str]) -> Option<SizeEstimate>;
}

/// Knows no size.
#[derive(Clone, Copy, Debug)]
pub struct NoSizes;

impl Estimator for NoSizes {
    fn size(&self, _: &[&str]) -> Option<SizeEstimate> {
        None
    }
}
