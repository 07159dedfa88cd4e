//! `ring53 key generate`: a TSIG key in the words of each server that will have it.

use data_encoding::BASE64;
use ring::rand::{SecureRandom, SystemRandom};

use crate::tsig::Algorithm;
use crate::wire::Name;

use super::report::tell;

/// Whose configuration the key is printed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `ring53.toml`.
    Ring53,
    /// `named.conf`.
    Bind,
    /// `nsd.conf`.
    Nsd,
    /// `knot.conf`.
    Knot,
    /// The secret alone, for `secret_file`.
    Secret,
}

/// Reads the name of an algorithm.
pub fn parse_algorithm(text: &str) -> Result<Algorithm, String> {
    Algorithm::ALL.into_iter().find(|algorithm| algorithm.text() == text).ok_or_else(|| {
        let known = Algorithm::ALL.map(Algorithm::text);
        format!("expected one of {}", known.join(", "))
    })
}

/// Prints a new key.
pub fn generate(name: &Name, algorithm: Algorithm, format: Format) -> Result<(), String> {
    let mut secret = vec![0; algorithm.mac_len()];
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_| "the system has no random numbers".to_string())?;
    tell!("{}", text(name, algorithm, &BASE64.encode(&secret), format).trim_end());
    Ok(())
}

fn text(name: &Name, algorithm: Algorithm, secret: &str, format: Format) -> String {
    let (name, algorithm) = (name.to_string(), algorithm.text());
    match format {
        Format::Ring53 => format!(
            "[[key]]\nname = \"{name}\"\nalgorithm = \"{algorithm}\"\nsecret = \"{secret}\"\n"
        ),
        Format::Bind => {
            format!("key \"{name}\" {{\n\talgorithm {algorithm};\n\tsecret \"{secret}\";\n}};\n")
        }
        Format::Nsd => {
            format!("key:\n\tname: \"{name}\"\n\talgorithm: {algorithm}\n\tsecret: \"{secret}\"\n")
        }
        Format::Knot => {
            format!("key:\n  - id: {name}\n    algorithm: {algorithm}\n    secret: {secret}\n")
        }
        Format::Secret => format!("{secret}\n"),
    }
}
