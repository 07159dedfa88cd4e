//! The schema as documented is the schema as written.

use std::collections::BTreeSet;

use ring53_bench::report::{self, Outputs, diff};
use serde_json::Value;

use crate::samples;

const DOCUMENT: &str = include_str!("../../REPORT.md");

/// Every object and its keys: `runs[].counts` and `sent`. Maps by name have `{}` for their names.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<(String, String)>) {
    const MAPS: [&str; 3] = ["runs[].rcodes", "compare.rows[].values", "compare.rows[].void"];
    match value {
        Value::Null => panic!("{path} is null: set every field of the example"),
        Value::Array(values) => {
            assert!(!values.is_empty(), "{path} is empty: set every field of the example");
            values.iter().for_each(|value| keys(value, &format!("{path}[]"), found));
        }
        Value::Object(fields) if MAPS.contains(&path) => {
            assert!(!fields.is_empty(), "{path} is empty: set every field of the example");
            fields.values().for_each(|value| keys(value, &format!("{path}{{}}"), found));
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                found.insert((path.to_string(), key.clone()));
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                keys(value, &inner, found);
            }
        }
        _ => {}
    }
}

/// The objects and keys that the document has: a heading each, a row of its table each. A heading
/// may name several places at which the same object stands.
fn documented(part: &str) -> (BTreeSet<(String, String)>, Vec<String>) {
    let (mut found, mut faults) = (BTreeSet::new(), Vec::new());
    let mut places: Vec<String> = Vec::new();
    for line in part.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            let quoted = heading.split('`').skip(1).step_by(2);
            places =
                quoted.map(|place| if place == "." { "" } else { place }.to_string()).collect();
        } else if let Some(row) = line.strip_prefix("| `") {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let key = cells[0].trim_end_matches('`');
            if cells.len() < 3 || cells[1].is_empty() || cells[2].is_empty() {
                faults.push(format!("{key}: a unit and a sentence are missing"));
            }
            found.extend(places.iter().map(|place| (place.clone(), key.to_string())));
        }
    }
    (found, faults)
}

fn part(title: &str) -> &str {
    let start = DOCUMENT.find(&format!("\n## {title}\n")).expect("the part of REPORT.md") + 4;
    let rest = &DOCUMENT[start..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

fn assert_documented(value: &Value, title: &str) {
    let mut written = BTreeSet::new();
    keys(value, "", &mut written);
    let (documented, faults) = documented(part(title));
    assert!(faults.is_empty(), "{faults:?}");
    let missing: Vec<_> = written.difference(&documented).collect();
    assert!(missing.is_empty(), "add to bench/REPORT.md, {title}: {missing:?}");
    let stale: Vec<_> = documented.difference(&written).collect();
    assert!(stale.is_empty(), "bench/REPORT.md, {title}, has what is not written: {stale:?}");
}

#[test]
fn every_field_is_documented() {
    assert_documented(&serde_json::to_value(samples::full()).unwrap(), "Report");
}

#[test]
fn every_field_of_a_diff_is_documented() {
    let mut other = samples::full();
    other.machine.kernel = "6.19".into();
    other.compare.as_mut().unwrap().rows.pop();
    let diff = diff::diff(&samples::full(), &other);
    let mut value = serde_json::to_value(diff).unwrap();
    // Lines that were not judged have no interval: one that was is enough here.
    value["lines"].as_array_mut().unwrap().retain(|line| !line["interval"].is_null());
    assert_documented(&value, "Diff");
}

#[test]
fn what_is_written_is_read_and_written_alike() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("result.json");
    let outputs = Outputs { json: Some(path.clone()), ..Outputs::default() };
    let report = samples::full();
    outputs.write(&report).unwrap();
    assert_eq!(report::read(&path).unwrap(), report);
    let first = std::fs::read(&path).unwrap();
    outputs.write(&report::read(&path).unwrap()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);

    let nowhere = Outputs { html: Some(directory.path().join("no/page.html")), ..outputs };
    let error = nowhere.write(&report).unwrap_err().to_string();
    assert!(error.contains("no/page.html"), "{error}");
    assert!(path.exists(), "one file that fails does not cost the other");
}
