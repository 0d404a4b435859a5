//! What an expression may cost. Models cel-go checker/cost.go.
use std::collections::HashMap;
use std::sync::Arc;

use super::library::{self, Argument, Estimate};
use super::{CostEstimate, Estimator, LIST, MAP, PER_CHARACTER, PER_PATTERN_CHARACTER, STRUCT, SizeEstimate};
use crate::ast::{ACCUMULATOR, Expr, Fold, Id, Literal};
use crate::check::{Checked, Reference};
use crate::types::Type;

pub(crate) fn estimate(checked: &Checked, sizes: &dyn Estimator) -> CostEstimate {
    let count = checked.ast.nodes.len();
    let mut coster =
        Coster { checked, sizes, paths: vec![Vec::new(); count], locals: Vec::new(), computed: HashMap::new(), entries: HashMap::new() };
    coster.cost(checked.ast.root)
}

/// Steps from a variable to a place in its data.
type Path = Vec<Arc<str>>;

/// How large a container's keys and values are.
#[derive(Clone, Copy, Debug)]
struct EntrySize {
    is_list: bool,
    key: SizeEstimate,
    value: SizeEstimate,
}

impl EntrySize {
    fn union(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        let (a, b) = (a?, b?);
        Some(Self { is_list: a.is_list, key: a.key.union(b.key), value: a.value.union(b.value) })
    }
}

struct Local {
    name: Arc<str>,
    path: Path,
    size: Option<SizeEstimate>,
    entries: Option<EntrySize>,
}

struct Coster<'c> {
    checked: &'c Checked,
    sizes: &'c dyn Estimator,
    paths: Vec<Path>,
    locals: Vec<Local>,
    computed: HashMap<Id, SizeEstimate>,
    entries: HashMap<Id, EntrySize>,
}

impl<'c> Coster<'c> {
    fn expr(&self, id: Id) -> &'c Expr {
        self.checked.ast.expr(id)
    }

    fn cost(&mut self, id: Id) -> CostEstimate {
        match self.expr(id) {
            Expr::Wrong | Expr::Literal(_) => CostEstimate::fixed(0),
            Expr::Ident(name) => {
                self.paths[id as usize] = match self.local(name) {
                    Some(local) => local.path.clone(),
                    None => vec![name.clone()],
                };
                CostEstimate::fixed(1)
            }
            Expr::Select { operand, field, test } => {
                let mut sum = self.cost(*operand);
                if *test {
                    return sum;
                }
                if matches!(self.checked.of(*operand), Type::Map(..) | Type::Object(_) | Type::Param(_))
                    || self.checked.of(*operand).is_struct()
                {
                    sum = sum.plus(CostEstimate::fixed(1));
                }
                let mut path = self.path(*operand);
                path.push(field.clone());
                self.paths[id as usize] = path;
                sum
            }
            Expr::Call { target, function, args } => self.call(id, *target, function, args),
            Expr::List { elements, .. } => {
                let mut size = if elements.is_empty() { SizeEstimate::fixed(0) } else { SizeEstimate { min: u64::MAX, max: 0 } };
                let mut sum = CostEstimate::fixed(LIST);
                for element in elements {
                    sum = sum.plus(self.cost(*element));
                    size = size.union(self.size_or_unknown(*element));
                }
                self.entries.insert(id, EntrySize { is_list: true, key: SizeEstimate::fixed(1), value: size });
                sum
            }
            Expr::Map { entries } => {
                let start = if entries.is_empty() { SizeEstimate::fixed(0) } else { SizeEstimate { min: u64::MAX, max: 0 } };
                let (mut key, mut value) = (start, start);
                let mut sum = CostEstimate::fixed(MAP);
                for entry in entries {
                    sum = sum.plus(self.cost(entry.key)).plus(self.cost(entry.value));
                    key = key.union(self.size_or_unknown(entry.key));
                    value = value.union(self.size_or_unknown(entry.value));
                }
                self.entries.insert(id, EntrySize { is_list: false, key, value });
                sum
            }
            Expr::Struct { fields, .. } => {
                fields.iter().fold(CostEstimate::fixed(STRUCT), |sum, (_, entry)| sum.plus(self.cost(entry.value)))
            }
            Expr::Fold(fold) => {
                if self.is_bind(fold) {
                    self.bind(id, fold)
                } else {
                    self.fold(id, fold)
                }
            }
        }
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| *local.name == *name)
    }

    fn path(&self, id: Id) -> Path {
        if let Expr::Ident(name) = self.expr(id)
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths[id as usize].clone()
    }

    fn call(&mut self, id: Id, target: Option<Id>, function: &str, args: &[Id]) -> CostEstimate {
        if function == "dyn"
            && let &[arg] = args
        {
            let cost = self.cost(arg).plus(CostEstimate::fixed(1));
            self.copy_sizes(id, arg);
            return cost;
        }
        let costs: Vec<CostEstimate> = args.iter().map(|arg| self.cost(*arg)).collect();
        let arguments: Vec<Argument> = args.iter().map(|arg| self.argument(*arg)).collect();
        let Some(Reference::Call { overloads, .. }) = self.checked.reference(id) else { return CostEstimate::fixed(0) };
        let mut sum = CostEstimate::fixed(0);
        let on = target.map(|target| {
            sum = sum.plus(self.cost(target));
            self.argument(target)
        });
        let mut found = CostEstimate { min: u64::MAX, max: 0 };
        let mut size: Option<SizeEstimate> = None;
        for overload in overloads {
            let Estimate { cost, size: result } = self.overload(id, function, overload, on.as_ref(), args, &arguments, &costs);
            found = found.union(cost);
            size = match (size, result) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
            if let ("index_list" | "index_map", Some(container)) = (*overload, args.first()) {
                size = self.entry_size(*container).map(|entry| entry.value);
                let mut path = self.path(*container);
                path.push(if *overload == "index_list" { "@items".into() } else { "@values".into() });
                self.paths[id as usize] = path;
            }
            if size.is_none() {
                size = self.size(id);
            }
        }
        if let Some(size) = size {
            self.computed.insert(id, size);
        }
        sum.plus(found)
    }

    fn argument(&mut self, id: Id) -> Argument<'c> {
        let size = self.size(id);
        let of = self.checked.of(id);
        let literal = if let Expr::Literal(literal) = self.expr(id) { Some(literal) } else { None };
        let path = self.path(id);
        let known = path.first().is_some_and(|first| !matches!(&**first, ACCUMULATOR | "__result__"));
        let element = if known {
            let mut path: Vec<&str> = path.iter().map(|step| &**step).collect();
            path.push("@items");
            self.sizes.size(&path)
        } else {
            None
        };
        // The library asks for the size again where the core knows none, without the names of accumulators.
        Argument { size, of, literal, element }
    }

    #[allow(clippy::too_many_arguments)] // all of one call
    fn overload(
        &mut self,
        id: Id,
        function: &str,
        overload: &str,
        target: Option<&Argument>,
        ids: &[Id],
        args: &[Argument],
        costs: &[CostEstimate],
    ) -> Estimate {
        let given = costs.iter().fold(CostEstimate::fixed(0), |sum, cost| sum.plus(*cost));
        if let Some(found) = library::estimate(function, overload, target, args) {
            return Estimate { cost: found.cost.plus(given), size: found.size };
        }
        let size = |argument: &Argument| argument.size.unwrap_or(SizeEstimate::UNKNOWN);
        let one = CostEstimate::fixed(1);
        let (cost, result) = match (overload, target, args) {
            ("string_format", Some(target), _) => (size(target).cost(PER_CHARACTER), None),
            ("string_to_bytes", _, [arg]) => {
                let size = size(arg);
                (size.cost(PER_CHARACTER), Some(SizeEstimate { min: size.min, max: size.max.wrapping_mul(4) }))
            }
            ("bytes_to_string", _, [arg]) => {
                let size = size(arg);
                (size.cost(PER_CHARACTER), Some(SizeEstimate { min: size.min / 4, max: size.max }))
            }
            ("strings_quote", _, [arg]) => {
                let size = size(arg);
                let result = SizeEstimate { min: size.min.wrapping_add(2), max: size.max.wrapping_mul(2).wrapping_add(2) };
                (size.cost(PER_CHARACTER), Some(result))
            }
            ("starts_with_string" | "ends_with_string", _, [arg]) => (size(arg).cost(PER_CHARACTER), None),
            ("in_list", _, [_, list]) => (size(list).cost(1.0), None),
            ("matches_string", Some(text), [pattern]) | ("matches", None, [text, pattern]) => {
                let text = size(text).plus(SizeEstimate::fixed(1)).cost(PER_CHARACTER);
                (text.times(size(pattern).cost(PER_PATTERN_CHARACTER)), None)
            }
            ("contains_string", Some(text), [part]) => (size(text).cost(PER_CHARACTER).times(size(part).cost(PER_CHARACTER)), None),
            ("logical_or" | "logical_and", _, _) => {
                let cost = CostEstimate { min: costs[0].min, max: costs[0].plus(costs[1]).max };
                return cost.into();
            }
            ("conditional", _, [_, then, otherwise]) => {
                let result = size(then).union(size(otherwise));
                let entries = EntrySize::union(self.entry_size(ids[1]), self.entry_size(ids[2]));
                self.set_entries(id, entries);
                let cost = costs[0].plus(costs[1].union(costs[2]));
                return Estimate { cost, size: Some(result) };
            }
            ("add_string" | "add_bytes" | "add_list", _, [a, b]) => {
                let result = size(a).plus(size(b));
                let entries = EntrySize::union(self.entry_size(ids[0]), self.entry_size(ids[1]));
                self.set_entries(id, entries);
                (if overload == "add_list" { one } else { result.cost(PER_CHARACTER) }, Some(result))
            }
            (
                "less_string"
                | "greater_string"
                | "less_equals_string"
                | "greater_equals_string"
                | "less_bytes"
                | "greater_bytes"
                | "less_equals_bytes"
                | "greater_equals_bytes"
                | "equals"
                | "not_equals",
                _,
                [a, b],
            ) => {
                let most = size(a).max.min(size(b).max);
                (CostEstimate { min: u64::from(most > 0), max: most }.scaled(PER_CHARACTER), None)
            }
            _ => (one, None),
        };
        Estimate { cost: cost.plus(given), size: result }
    }

    fn push(&mut self, name: &Arc<str>, path: Path, size: Option<SizeEstimate>, entries: Option<EntrySize>) {
        self.locals.push(Local { name: name.clone(), path, size, entries });
    }

    /// A comprehension's variable: keys or values of the range.
    fn push_variable(&mut self, name: &Arc<str>, range: Id, keys: bool) {
        let entries = self.entry_size(range);
        let is_list = entries.map_or(matches!(self.checked.of(range), Type::List(_)), |entries| entries.is_list);
        let size = entries.map(|entries| if keys { entries.key } else { entries.value });
        let step = match (keys, is_list) {
            (true, true) => "@indices",
            (true, false) => "@keys",
            (false, true) => "@items",
            (false, false) => "@values",
        };
        let mut path = self.path(range);
        path.push(step.into());
        self.push(name, path, size, None);
    }

    fn push_accumulator(&mut self, fold: &Fold) {
        let path = self.path(fold.init);
        let entries = self.entry_size(fold.init);
        let size = self.size(fold.init);
        self.push(&fold.accumulator, path, size, entries);
    }

    fn fold(&mut self, id: Id, fold: &Fold) -> CostEstimate {
        let mut sum = self.cost(fold.range).plus(self.cost(fold.init));
        self.push_accumulator(fold);
        match &fold.variable2 {
            Some(second) => {
                self.push_variable(&fold.variable, fold.range, true);
                self.push_variable(second, fold.range, false);
            }
            None => {
                let entries = self.entry_size(fold.range);
                let is_list = entries.map_or(matches!(self.checked.of(fold.range), Type::List(_)), |entries| entries.is_list);
                self.push_variable(&fold.variable, fold.range, !is_list);
            }
        }
        let turn = self.cost(fold.condition).plus(self.cost(fold.step));
        self.locals.truncate(self.locals.len() - if fold.variable2.is_some() { 2 } else { 1 });
        sum = sum.plus(self.cost(fold.result));
        self.locals.pop();
        let turns = self.size_or_unknown(fold.range);
        match self.expr(fold.init) {
            Expr::Literal(_) => {
                if let Some(size) = self.size(fold.init) {
                    self.computed.insert(id, size);
                }
            }
            Expr::List { .. } | Expr::Map { .. } => {
                self.computed.insert(id, turns);
                let entries = self.entry_size(fold.step);
                self.set_entries(id, entries);
            }
            _ => {}
        }
        sum.plus(turns.each(turn))
    }

    /// A variable bound once, as `optMap` does.
    fn is_bind(&self, fold: &Fold) -> bool {
        matches!(self.expr(fold.range), Expr::List { elements, .. } if elements.is_empty())
            && matches!(self.expr(fold.condition), Expr::Literal(Literal::Bool(false)))
            && &*fold.accumulator != "__result__"
    }

    fn bind(&mut self, id: Id, fold: &Fold) -> CostEstimate {
        let sum = self.cost(fold.range).plus(self.cost(fold.init));
        self.push_accumulator(fold);
        let sum = sum.plus(self.cost(fold.result));
        self.locals.pop();
        self.copy_sizes(id, fold.result);
        sum
    }

    fn copy_sizes(&mut self, to: Id, from: Id) {
        if let Some(size) = self.size(from) {
            self.computed.insert(to, size);
        }
        let entries = self.entry_size(from);
        self.set_entries(to, entries);
    }

    fn set_entries(&mut self, id: Id, entries: Option<EntrySize>) {
        if let Some(entries) = entries {
            self.entries.insert(id, entries);
        }
    }

    fn entry_size(&self, id: Id) -> Option<EntrySize> {
        if let Some(found) = self.entries.get(&id) {
            return Some(*found);
        }
        match self.expr(id) {
            Expr::Ident(name) => self.local(name)?.entries,
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, id: Id) -> SizeEstimate {
        self.size(id).unwrap_or(SizeEstimate::UNKNOWN)
    }

    fn size(&mut self, id: Id) -> Option<SizeEstimate> {
        if let Some(found) = self.computed.get(&id) {
            return Some(*found);
        }
        match self.expr(id) {
            Expr::Literal(Literal::String(text)) => return Some(SizeEstimate::fixed(text.chars().count() as u64)),
            Expr::Literal(Literal::Bytes(bytes)) => return Some(SizeEstimate::fixed(bytes.len() as u64)),
            Expr::Literal(_) => return Some(SizeEstimate::fixed(1)),
            Expr::List { elements, .. } => return Some(SizeEstimate::fixed(elements.len() as u64)),
            Expr::Map { entries } => return Some(SizeEstimate::fixed(entries.len() as u64)),
            _ => {}
        }
        let path = self.path(id);
        if !path.is_empty() {
            let path: Vec<&str> = path.iter().map(|step| &**step).collect();
            if let Some(size) = self.sizes.size(&path) {
                self.computed.insert(id, size);
                return Some(size);
            }
        }
        if is_scalar(self.checked.of(id)) {
            return Some(SizeEstimate::fixed(1));
        }
        match self.expr(id) {
            Expr::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }
}

fn is_scalar(of: &Type) -> bool {
    match of {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(of) => is_scalar(of),
        _ => false,
    }
}
