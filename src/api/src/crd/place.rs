//! Where a walk through an object stands: steps that are put into words only where something is wrong.
use std::fmt;

#[derive(Clone, Copy, Debug)]
pub enum Place<'p> {
    Root,
    /// `a.b`; at the root `b`.
    Field(&'p Place<'p>, &'p str),
    /// `a.b`; at the root `.b`.
    Below(&'p Place<'p>, &'p str),
    /// `a[b]`
    Key(&'p Place<'p>, &'p str),
    Item(&'p Place<'p>, usize),
}

impl Place<'_> {
    /// Whether it prints as nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Place::Root => true,
            Place::Field(above, name) => name.is_empty() && above.is_empty(),
            _ => false,
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Field(above, name) if above.is_empty() => f.write_str(name),
            Place::Field(above, name) | Place::Below(above, name) => write!(f, "{above}.{name}"),
            Place::Key(above, name) => write!(f, "{above}[{name}]"),
            Place::Item(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_printed_as_paths() {
        let (spec, bare) = (Place::Field(&Place::Root, "spec"), Place::Field(&Place::Root, ""));
        let (item, key, below) = (Place::Item(&spec, 3), Place::Key(&spec, "k"), Place::Below(&Place::Root, "x"));
        let printed = [&Place::Root, &spec, &bare, &item, &key, &below, &Place::Field(&item, "a"), &Place::Field(&bare, "a"), &Place::Below(&key, "a")];
        assert_eq!(printed.map(ToString::to_string), ["", "spec", "", "spec[3]", "spec[k]", ".x", "spec[3].a", "a", "spec[k].a"]);
        assert!(bare.is_empty() && !below.is_empty());
    }
}
