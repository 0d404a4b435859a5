//! The tree of an expression.
use std::sync::Arc;

/// A node, by its place in [`Ast`].
pub(crate) type Id = u32;

/// Nodes refer to each other by number, so types and references are plain vectors beside them.
#[derive(Debug, Default)]
pub(crate) struct Ast {
    pub nodes: Vec<Node>,
    pub root: Id,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub expr: Expr,
    /// Where it stands in the text, in bytes: what errors point to.
    pub at: u32,
}

/// The name that macros give their accumulator; no text can say it.
pub(crate) const ACCUMULATOR: &str = "@result";

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

#[derive(Clone, Debug)]
pub(crate) enum Expr {
    /// Stands where the text is wrong; an issue says how.
    Wrong,
    Literal(Literal),
    Ident(Arc<str>),
    Select {
        operand: Id,
        field: Arc<str>,
        test: bool,
    },
    Call {
        target: Option<Id>,
        function: Arc<str>,
        args: Vec<Id>,
    },
    /// Elements, and which of them were written with `?`.
    List {
        elements: Vec<Id>,
        optional: Vec<bool>,
    },
    Map {
        entries: Vec<Entry>,
    },
    Struct {
        name: Arc<str>,
        fields: Vec<(Arc<str>, Entry)>,
    },
    Fold(Box<Fold>),
}

/// An entry of a map or a field of a struct, which has no key.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: Id,
    pub value: Id,
    pub optional: bool,
    /// Of the colon.
    pub at: u32,
}

/// A comprehension: what macros become.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub range: Id,
    pub variable: Arc<str>,
    pub variable2: Option<Arc<str>>,
    pub accumulator: Arc<str>,
    pub init: Id,
    pub condition: Id,
    pub step: Id,
    pub result: Id,
}

impl Ast {
    pub fn add(&mut self, at: u32, expr: Expr) -> Id {
        self.nodes.push(Node { expr, at });
        (self.nodes.len() - 1) as Id
    }

    pub fn expr(&self, id: Id) -> &Expr {
        &self.nodes[id as usize].expr
    }

    pub fn at(&self, id: Id) -> u32 {
        self.nodes[id as usize].at
    }

    /// `a.b.c` as a name, if that is what the node is.
    pub fn qualified_name(&self, id: Id) -> Option<String> {
        match self.expr(id) {
            Expr::Ident(name) => Some(name.to_string()),
            Expr::Select { operand, field, test: false } => {
                let mut name = self.qualified_name(*operand)?;
                name.push('.');
                name.push_str(field);
                Some(name)
            }
            _ => None,
        }
    }

    /// The number of a node's copy, made with all below it.
    pub fn copy(&mut self, id: Id) -> Id {
        let Node { expr, at } = self.nodes[id as usize].clone();
        let expr = match expr {
            Expr::Wrong | Expr::Literal(_) | Expr::Ident(_) => expr,
            Expr::Select { operand, field, test } => Expr::Select { operand: self.copy(operand), field, test },
            Expr::Call { target, function, args } => Expr::Call {
                target: target.map(|target| self.copy(target)),
                function,
                args: args.into_iter().map(|arg| self.copy(arg)).collect(),
            },
            Expr::List { elements, optional } => {
                Expr::List { elements: elements.into_iter().map(|element| self.copy(element)).collect(), optional }
            }
            Expr::Map { entries } => Expr::Map { entries: entries.into_iter().map(|entry| self.copy_entry(entry, true)).collect() },
            Expr::Struct { name, fields } => {
                Expr::Struct { name, fields: fields.into_iter().map(|(name, entry)| (name, self.copy_entry(entry, false))).collect() }
            }
            Expr::Fold(fold) => Expr::Fold(Box::new(Fold {
                range: self.copy(fold.range),
                init: self.copy(fold.init),
                condition: self.copy(fold.condition),
                step: self.copy(fold.step),
                result: self.copy(fold.result),
                ..*fold
            })),
        };
        self.add(at, expr)
    }

    fn copy_entry(&mut self, entry: Entry, keyed: bool) -> Entry {
        Entry { key: if keyed { self.copy(entry.key) } else { entry.key }, value: self.copy(entry.value), ..entry }
    }
}
