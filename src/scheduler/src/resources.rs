//! Amounts of resources: CPU in millicores, everything else in whole units (bytes, pieces).
//!
//! Models pkg/scheduler/framework/types.go `Resource`.
use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    /// Extended resources, huge pages and attachable volumes; few, by name.
    pub scalars: Vec<(Arc<str>, i64)>,
}

/// A resource's place, for loops over many nodes.
#[derive(Clone, Copy, Debug)]
pub enum Place<'n> {
    MilliCpu,
    Memory,
    Ephemeral,
    Scalar(&'n str),
}

impl<'n> Place<'n> {
    pub fn of(name: &'n str) -> Self {
        match name {
            "cpu" => Self::MilliCpu,
            "memory" => Self::Memory,
            "ephemeral-storage" => Self::Ephemeral,
            _ => Self::Scalar(name),
        }
    }
}

/// Amount of `quantity` in the unit of [`Resources`].
pub fn amount(resource: &str, quantity: &str) -> i64 {
    let Ok(parsed) = Quantity::parse(quantity) else { return 0 };
    if resource == "cpu" { parsed.milli_value() } else { parsed.value() }
}

impl Resources {
    pub fn of(list: Option<&BTreeMap<String, QuantityText>>) -> Self {
        let mut all = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            all.set(name, amount(name, &quantity.0));
        }
        all
    }

    pub fn get(&self, name: &str) -> i64 {
        self.at(Place::of(name))
    }

    pub fn at(&self, place: Place) -> i64 {
        match place {
            Place::MilliCpu => self.milli_cpu,
            Place::Memory => self.memory_bytes,
            Place::Ephemeral => self.ephemeral_bytes,
            Place::Scalar(name) => self.scalars.iter().find(|(n, _)| **n == *name).map_or(0, |(_, amount)| *amount),
        }
    }

    pub fn set(&mut self, name: &str, amount: i64) {
        *self.slot(name) = amount;
    }

    fn slot(&mut self, name: &str) -> &mut i64 {
        match name {
            "cpu" => &mut self.milli_cpu,
            "memory" => &mut self.memory_bytes,
            "ephemeral-storage" => &mut self.ephemeral_bytes,
            _ => {
                let at = self.scalars.partition_point(|(n, _)| **n < *name);
                if self.scalars.get(at).is_none_or(|(n, _)| **n != *name) {
                    self.scalars.insert(at, (Arc::from(name), 0));
                }
                &mut self.scalars[at].1
            }
        }
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory_bytes = with(self.memory_bytes, other.memory_bytes);
        self.ephemeral_bytes = with(self.ephemeral_bytes, other.ephemeral_bytes);
        for (name, amount) in &other.scalars {
            let slot = self.slot(name);
            *slot = with(*slot, *amount);
        }
    }

    pub fn add(&mut self, more: &Self) {
        self.combine(more, i64::saturating_add);
    }

    pub fn subtract(&mut self, less: &Self) {
        self.combine(less, i64::saturating_sub);
    }

    /// Whether CPU, memory and ephemeral storage, as far as asked for, are left of `all` beside what is taken.
    pub fn fits_beside(&self, taken: &Self, all: &Self) -> bool {
        let fits = |wanted: i64, taken: i64, all: i64| wanted <= 0 || wanted <= all - taken;
        fits(self.milli_cpu, taken.milli_cpu, all.milli_cpu)
            && fits(self.memory_bytes, taken.memory_bytes, all.memory_bytes)
            && fits(self.ephemeral_bytes, taken.ephemeral_bytes, all.ephemeral_bytes)
    }

    /// The larger of both, resource by resource.
    pub fn raise(&mut self, to: &Self) {
        self.combine(to, i64::max);
    }

    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0 && self.memory_bytes == 0 && self.ephemeral_bytes == 0 && self.scalars.iter().all(|(_, amount)| *amount == 0)
    }

    /// Names and amounts, those of nothing left out.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        let fixed = [("cpu", self.milli_cpu), ("memory", self.memory_bytes), ("ephemeral-storage", self.ephemeral_bytes)];
        fixed.into_iter().chain(self.scalars.iter().map(|(name, amount)| (&**name, *amount))).filter(|(_, amount)| *amount != 0)
    }
}

/// Whether the name is that of a resource which is counted in pieces (pkg/scheduler/util `IsScalarResourceName`).
pub fn is_scalar(name: &str) -> bool {
    !matches!(name, "cpu" | "memory" | "ephemeral-storage" | "pods")
}

/// Whether a vendor's or a user's resource, not one of Kubernetes' own (pkg/apis/core/v1/helper `IsExtendedResourceName`).
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}
