//! Which types may stand for which, and what is learnt of type parameters on the way. Models cel-go checker/types.go.
use std::sync::Arc;

use crate::types::Type;

/// What is known of the types that the checker made up.
#[derive(Debug, Default)]
pub(crate) struct Unifier {
    known: Vec<Option<Type>>,
    /// What to take back if an attempt fails: number, and what was known before.
    trail: Vec<(u32, Option<Type>)>,
}

impl Unifier {
    pub fn fresh(&mut self) -> Type {
        self.known.push(None);
        Type::Param(self.known.len() as u32 - 1)
    }

    fn find(&self, param: u32) -> Option<&Type> {
        self.known.get(param as usize)?.as_ref()
    }

    fn learn(&mut self, param: u32, of: Type) {
        let Some(slot) = self.known.get_mut(param as usize) else { return };
        let before = slot.replace(of);
        self.trail.push((param, before));
    }

    fn attempt(&mut self, run: impl FnOnce(&mut Self) -> bool) -> bool {
        let mark = self.trail.len();
        let fits = run(self);
        if !fits {
            for (param, before) in self.trail.drain(mark..).rev() {
                self.known[param as usize] = before;
            }
        } else if mark == 0 {
            self.trail.clear();
        }
        fits
    }

    /// Whether `a` may be used where `b` is wanted (or the other way round, for parameters).
    pub fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        self.attempt(|this| this.fits(a, b))
    }

    pub fn all_assignable(&mut self, a: &[Type], b: &[Type]) -> bool {
        a.len() == b.len() && self.attempt(|this| a.iter().zip(b).all(|(a, b)| this.fits(a, b)))
    }

    fn fits(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(param) = b {
            match self.substitutes(a, *param) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Param(param) = a {
            return self.substitutes(b, *param).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => nullable(other),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.fits(a, b),
            (Type::Map(ak, av), Type::Map(bk, bv)) => self.fits(ak, bk) && self.fits(av, bv),
            _ => a == b,
        }
    }

    /// Whether `param` may stand for `of`, and whether it already stood for something.
    fn substitutes(&mut self, of: &Type, param: u32) -> (bool, bool) {
        if *of == Type::Param(param) {
            return (true, true);
        }
        if let Some(known) = self.find(param).cloned() {
            if *of == known {
                return (true, true);
            }
            if !self.fits(of, &known) {
                return (false, true);
            }
            let general = most_general(of, &known).clone();
            if self.free_of(param, &general) {
                self.learn(param, general);
            }
            return (true, true);
        }
        let free = self.free_of(param, of);
        if free {
            self.learn(param, of.clone());
        }
        (free, false)
    }

    /// Whether `param` does not occur in `within`.
    fn free_of(&self, param: u32, within: &Type) -> bool {
        match within {
            Type::Param(other) if *other == param => false,
            Type::Param(other) => self.find(*other).is_none_or(|known| self.free_of(param, known)),
            Type::List(of) | Type::Optional(of) | Type::Type(Some(of)) => self.free_of(param, of),
            Type::Map(key, value) => self.free_of(param, key) && self.free_of(param, value),
            _ => true,
        }
    }

    /// The type with all that is known put in; what is not becomes `dyn` if asked for.
    pub fn substitute(&self, of: &Type, unknown_is_dyn: bool) -> Type {
        let inner = |of: &Arc<Type>| Arc::new(self.substitute(of, unknown_is_dyn));
        match of {
            Type::Param(param) => match self.find(*param) {
                Some(known) => self.substitute(known, unknown_is_dyn),
                None if unknown_is_dyn => Type::Dyn,
                None => of.clone(),
            },
            Type::List(of) => Type::List(inner(of)),
            Type::Optional(of) => Type::Optional(inner(of)),
            Type::Map(key, value) => Type::Map(inner(key), inner(value)),
            Type::Type(Some(of)) => Type::Type(Some(inner(of))),
            plain => plain.clone(),
        }
    }
}

fn nullable(of: &Type) -> bool {
    matches!(of, Type::Null | Type::Optional(_) | Type::Opaque(_) | Type::Object(_) | Type::Any | Type::Duration | Type::Timestamp)
}

/// Of two types that fit each other, the one that says less.
pub(crate) fn most_general<'t>(a: &'t Type, b: &'t Type) -> &'t Type {
    if less_specific(a, b) { a } else { b }
}

fn less_specific(a: &Type, b: &Type) -> bool {
    if a.is_dyn() || matches!(a, Type::Param(_)) {
        return true;
    }
    if b.is_dyn() || matches!(b, Type::Param(_)) {
        return false;
    }
    match (a, b) {
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => less_specific(a, b),
        (Type::Map(ak, av), Type::Map(bk, bv)) => less_specific(ak, bk) && less_specific(av, bv),
        (Type::Type(_), Type::Type(_)) => true,
        _ => a == b,
    }
}
