//! The one function that answers.
