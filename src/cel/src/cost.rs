//! What an expression may cost, before it runs and while it does.
use crate::{Declared, Shape};

mod actual;
mod estimate;
mod library;

pub(crate) use actual::Rule;
pub(crate) use estimate::estimate;

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

/// Sizes of data by its declaration, whatever the variable is called that holds it.
/// Models apiextensions-apiserver/pkg/apiserver/schema/cel/compilation.go sizeEstimator.
#[derive(Clone, Copy, Debug)]
pub struct DeclaredSizes<'d>(pub &'d Declared);

static KEY: Declared = Declared::string();

impl Estimator for DeclaredSizes<'_> {
    fn size(&self, path: &[&str]) -> Option<SizeEstimate> {
        let (_, path) = path.split_first()?;
        let mut at = self.0;
        for name in path {
            at = match (&at.shape, *name) {
                (Shape::List { element, .. }, "@items" | "@values") => element,
                (Shape::Map { value }, "@items" | "@values") => value,
                (Shape::Map { .. }, "@keys") => &KEY,
                (Shape::Object(of), name) => &of.field_exactly(name)?.of,
                _ => return None,
            };
        }
        Some(SizeEstimate { min: 0, max: at.max_elements.unwrap_or(0) })
    }
}

/// `ceil(count * factor)`, as upstream rounds.
pub(crate) fn scaled(count: u64, factor: f64) -> u64 {
    let product = count as f64 * factor;
    if product >= 2f64.powi(64) { u64::MAX } else { product.ceil() as u64 }
}

impl CostEstimate {
    pub(crate) const fn fixed(cost: u64) -> Self {
        Self { min: cost, max: cost }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self { min: scaled(self.min, factor), max: scaled(self.max, factor) }
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

impl SizeEstimate {
    pub(crate) const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    pub(crate) const fn fixed(size: u64) -> Self {
        Self { min: size, max: size }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub(crate) fn cost(self, factor: f64) -> CostEstimate {
        CostEstimate { min: scaled(self.min, factor), max: scaled(self.max, factor) }
    }

    pub(crate) fn each(self, cost: CostEstimate) -> CostEstimate {
        CostEstimate { min: self.min.saturating_mul(cost.min), max: self.max.saturating_mul(cost.max) }
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// Weights of the cost model; cel-go common/cost.go.
pub(crate) const PER_CHARACTER: f64 = 0.1;
pub(crate) const PER_PATTERN_CHARACTER: f64 = 0.25;
pub(crate) const LIST: u64 = 10;
pub(crate) const MAP: u64 = 30;
pub(crate) const STRUCT: u64 = 40;
