//! Reports: what is written, what a page shows in a real browser, what counts as a change.

mod browser;
mod changes;
mod pages;
mod samples;
mod schema;
mod texts;
