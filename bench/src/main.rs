//! `ring53-bench`: zones, queries and comparison runs.
fn main() {}
