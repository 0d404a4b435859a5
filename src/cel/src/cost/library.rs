//! What calls may cost: Kubernetes' functions and the extensions. Models `EstimateCallCost` of
//! k8s.io/apiserver/pkg/cel/library/cost.go and the estimators of cel-go ext/{lists,sets}.go.
use super::{CostEstimate, LIST, PER_CHARACTER, PER_PATTERN_CHARACTER, STRUCT, SizeEstimate, scaled};
use crate::ast::Literal;
use crate::types::Type;

/// Allows for two authorization checks per expression.
pub(crate) const CHECK: u64 = 350_000;

/// An argument, as far as estimates look at it.
pub(crate) struct Argument<'c> {
    pub size: Option<SizeEstimate>,
    pub of: &'c Type,
    pub literal: Option<&'c Literal>,
    /// The size of a list's element, if its place is known.
    pub element: Option<SizeEstimate>,
}

impl Argument<'_> {
    fn size(&self) -> SizeEstimate {
        self.size.unwrap_or(SizeEstimate::UNKNOWN)
    }

    fn element_type(&self) -> Option<&Type> {
        match self.of {
            Type::List(of) | Type::Optional(of) | Type::Map(of, _) => Some(of),
            _ => None,
        }
    }

    fn count(&self, otherwise: u64) -> u64 {
        match self.literal {
            Some(Literal::Int(i)) => u64::try_from(*i).unwrap_or(0),
            _ => otherwise,
        }
    }
}

/// A call's cost without that of its arguments, and the size of what it gives.
pub(crate) struct Estimate {
    pub cost: CostEstimate,
    pub size: Option<SizeEstimate>,
}

impl From<CostEstimate> for Estimate {
    fn from(cost: CostEstimate) -> Self {
        Self { cost, size: None }
    }
}

pub(crate) fn selector(length: SizeEstimate) -> CostEstimate {
    let parse = length.cost(PER_CHARACTER);
    let requirements = length.cost(0.5).scaled((LIST + STRUCT) as f64);
    CostEstimate::fixed(LIST).plus(parse).plus(requirements)
}

/// `None` where the core's rules apply.
pub(crate) fn estimate(function: &str, overload: &str, target: Option<&Argument>, args: &[Argument]) -> Option<Estimate> {
    if let Some(found) = of_overload(overload, target, args) {
        return Some(found);
    }
    let one = Some(Estimate::from(CostEstimate::fixed(1)));
    let traversed = |size: SizeEstimate| Estimate { cost: size.cost(PER_CHARACTER), size: Some(size) };
    match function {
        "check" => Some(CostEstimate::fixed(CHECK).into()),
        "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace" | "name" | "allowed" | "reason" | "error"
        | "errored" => one,
        "fieldSelector" | "labelSelector" if args.len() == 1 => Some(selector(args[0].size()).into()),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes" => target.map(|target| {
            let mut each = CostEstimate::fixed(1);
            match target.element_type() {
                Some(of) => {
                    if matches!(of, Type::String | Type::Bytes) {
                        each = each.plus(target.element.unwrap_or(SizeEstimate::UNKNOWN).cost(PER_CHARACTER));
                    }
                    target.size().each(each).into()
                }
                None if function == "includes" => target.size().each(each).into(),
                None => target.size().cost(PER_CHARACTER).into(),
            }
        }),
        "url" | "jsonpatch.escapeKey" if args.len() == 1 => Some(traversed(args[0].size())),
        "lowerAscii" | "upperAscii" | "substring" | "trim" => target.map(|target| traversed(target.size())),
        "replace" if args.len() >= 2 => target.map(|target| replace(target.size(), args[0].size(), args[1].size())),
        "split" => target.map(|target| {
            let size = target.size();
            let most = match args.get(1).and_then(|arg| arg.literal) {
                Some(Literal::Int(i)) => *i as u64,
                _ => size.max,
            };
            Estimate { cost: size.cost(2.0 * PER_CHARACTER), size: Some(SizeEstimate { min: 0, max: most }) }
        }),
        "join" => target.map(|target| {
            let count = target.size();
            let mut size = match target.element_type() {
                Some(_) => count.times(target.element.unwrap_or(SizeEstimate::UNKNOWN)),
                None => SizeEstimate::fixed(0),
            };
            if let Some(separator) = args.first() {
                let separators = SizeEstimate { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
                size = size.plus(separator.size().times(separators));
            }
            Estimate { cost: size.cost(PER_CHARACTER), size: Some(size) }
        }),
        "find" | "findAll" if !args.is_empty() => target.map(|target| {
            let size = target.size();
            let text = size.plus(SizeEstimate::fixed(1)).cost(PER_CHARACTER);
            let pattern = args[0].size().cost(PER_PATTERN_CHARACTER);
            Estimate { cost: text.times(pattern), size: Some(SizeEstimate { min: 0, max: size.max }) }
        }),
        "ip" if overload == "cidr_ip" => one,
        "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" if !args.is_empty() => {
            Some(args[0].size().cost(PER_CHARACTER).into())
        }
        "ip.isCanonical" if !args.is_empty() => Some(args[0].size().cost(2.0 * PER_CHARACTER).into()),
        "containsIP" | "containsCIDR" if !args.is_empty() => {
            // An address has 4 or 16 bytes.
            let bytes = SizeEstimate { min: 4, max: 16 };
            let mut cost = bytes.plus(bytes).cost(PER_CHARACTER);
            if function == "containsCIDR" {
                cost = cost.plus(bytes.cost(PER_CHARACTER)).plus(CostEstimate::fixed(1));
            }
            if matches!(overload, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
                cost = cost.plus(args[0].size().cost(PER_CHARACTER));
            }
            Some(cost.into())
        }
        // 128 stands for the longest pattern of a named format.
        "validate" if !args.is_empty() => Some(args[0].size().cost(PER_CHARACTER).scaled(128.0 * PER_PATTERN_CHARACTER).into()),
        "format.named"
        | "masked"
        | "prefixLength"
        | "family"
        | "isUnspecified"
        | "isLoopback"
        | "isLinkLocalMulticast"
        | "isLinkLocalUnicast"
        | "isGlobalUnicast"
        | "sign"
        | "asInteger"
        | "isInteger"
        | "asApproximateFloat"
        | "isGreaterThan"
        | "isLessThan"
        | "compareTo"
        | "add"
        | "sub"
        | "major"
        | "minor"
        | "patch"
        | "getScheme"
        | "getHostname"
        | "getHost"
        | "getPort"
        | "getEscapedPath"
        | "getQuery" => one,
        "_==_" if args.len() == 2 && args[0].of == args[1].of => match args[0].of {
            Type::Opaque("kubernetes.NamedFormat") => Some(CostEstimate { min: 1, max: 64 }.scaled(PER_CHARACTER).into()),
            Type::Opaque("kubernetes.URL") => {
                let size = args[1].size.unwrap_or(SizeEstimate::fixed(1));
                Some(CostEstimate { min: 1, max: size.max }.scaled(PER_CHARACTER).into())
            }
            Type::Opaque(_) => one,
            _ => None,
        },
        _ => None,
    }
}

fn replace(size: SizeEstimate, old: SizeEstimate, new: SizeEstimate) -> Estimate {
    let (mut count, mut kept) = (SizeEstimate::fixed(0), SizeEstimate::fixed(0));
    // The longest result: the smallest parts become the largest, or stay if that is longer.
    if old.min == 0 {
        count.max = size.max.saturating_add(1);
        kept.max = size.max;
    } else if new.max <= old.min {
        kept.max = size.max;
    } else {
        count.max = ratio(size.max, old.min);
    }
    // The shortest.
    if old.max == 0 {
        count.min = size.min.saturating_add(1);
        kept.min = size.min;
    } else if old.max <= new.min {
        kept.min = size.min;
    } else {
        count.min = ratio(size.min, old.max);
    }
    Estimate { cost: size.cost(2.0 * PER_CHARACTER), size: Some(count.times(new).plus(kept)) }
}

fn ratio(of: u64, by: u64) -> u64 {
    scaled(1, of as f64 / by as f64)
}

fn of_overload(overload: &str, target: Option<&Argument>, args: &[Argument]) -> Option<Estimate> {
    let listed = |factor: f64, size: SizeEstimate| {
        let cost = size.cost(factor).plus(CostEstimate::fixed(1 + LIST));
        Some(Estimate { cost, size: Some(size) })
    };
    let squared = |argument: &Argument, textual: bool| {
        let size = argument.size();
        listed(if textual { 2.0 + PER_CHARACTER } else { 2.0 }, size.times(size))
    };
    let sets = |factor: f64| match args {
        [a, b] => Some(a.size().times(b.size()).cost(factor).plus(CostEstimate::fixed(1)).into()),
        _ => None,
    };
    match overload {
        "list_sets_contains_list" | "list_sets_intersects_list" => sets(1.0),
        "list_sets_equivalent_list" => sets(2.0),
        "list_slice" => {
            let target = target?;
            let (start, end) = (args.first()?.count(0), args.get(1)?.count(target.size().max));
            listed(1.0, SizeEstimate::fixed(end.wrapping_sub(start)))
        }
        "lists_range" => listed(1.0, SizeEstimate::fixed(args.first()?.count(u64::MAX))),
        "list_reverse" => listed(1.0, target?.size()),
        "list_flatten" | "list_flatten_int" => {
            let depth = args.first().map_or(1, |arg| arg.count(u64::MAX));
            listed(depth as f64, target?.size())
        }
        "list_distinct" => squared(target?, false),
        "list_string_sort" | "list_bytes_sort" => squared(target?, true),
        "list_string_sortByAssociatedKeys" | "list_bytes_sortByAssociatedKeys" => squared(args.first()?, true),
        _ if overload.ends_with("_sortByAssociatedKeys") => squared(args.first()?, false),
        _ if overload.starts_with("list_") && overload.ends_with("_sort") => squared(target?, false),
        _ => None,
    }
}
