//! The immutable view that the cores answer from.
