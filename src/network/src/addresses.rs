//! Which sandbox has which address.
