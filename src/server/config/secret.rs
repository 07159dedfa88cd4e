//! The `[[key]]` tables: TSIG keys, their secrets inline or in a file of their own.

use std::fs;
use std::path::Path;

use data_encoding::BASE64;

use crate::tsig::{Algorithm, Key, Keys};
use crate::wire::Name;

use super::super::keys::Table;

/// Reads all keys; what is wrong goes to the tables' errors.
pub fn read_all(tables: Vec<Table<'_>>, directory: &Path) -> Keys {
    let mut keys: Vec<Key> = Vec::new();
    for mut table in tables {
        if let Some(key) = read(&mut table, directory) {
            if keys.iter().any(|before| before.name() == key.name()) {
                table.error("name", "another key has this name: remove one");
            }
            keys.push(key);
        }
        table.finish();
    }
    Keys::new(keys)
}

fn read(table: &mut Table<'_>, directory: &Path) -> Option<Key> {
    let name = table.parsed::<Name>("name", "a domain name such as xfr.example.");
    let choices = Algorithm::ALL.map(|algorithm| (algorithm.text(), algorithm));
    let algorithm = table.choice("algorithm", &choices);
    let inline = table.string("secret");
    let file = table.string("secret_file");
    table.require(&["name", "algorithm"]);
    let (key, text) = match (inline, file) {
        (Some(secret), None) => ("secret", secret),
        (None, Some(file)) => {
            let path = directory.join(file);
            match fs::read_to_string(&path) {
                Ok(text) => ("secret_file", text.trim().to_string()),
                Err(error) => {
                    table.error("secret_file", &format!("{}: {error}", path.display()));
                    return None;
                }
            }
        }
        (Some(_), Some(_)) => {
            table.error("secret", "secret and secret_file exclude each other: remove one");
            return None;
        }
        (None, None) => {
            table.require(&["secret"]);
            return None;
        }
    };
    let Some(secret) = BASE64.decode(text.as_bytes()).ok().filter(|secret| !secret.is_empty())
    else {
        table.error(key, "expected base64, as ring53 key generate writes it");
        return None;
    };
    Some(Key::new(&name?, algorithm?, &secret))
}
