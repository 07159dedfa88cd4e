//! Knobs for people, and for programs.

use serde_json::{Value, json};

use super::knob::{Knob, Verdict};

/// Lines for people: what is not as advised first.
pub fn lines(knobs: &[Knob]) -> Vec<String> {
    let mut lines = Vec::new();
    for (verdict, title) in [
        (Verdict::Differs, "Not as advised"),
        (Verdict::Unread, "Could not be read"),
        (Verdict::Good, "As advised"),
        (Verdict::Absent, "Nothing to set here"),
    ] {
        let of_it: Vec<&Knob> = knobs.iter().filter(|knob| knob.verdict == verdict).collect();
        if of_it.is_empty() {
            continue;
        }
        lines.push(format!("{title}: {}", of_it.len()));
        for knob in of_it {
            lines.push(String::new());
            lines.extend(of_one(knob));
        }
        lines.push(String::new());
    }
    lines.push(summary(knobs));
    lines
}

fn of_one(knob: &Knob) -> Vec<String> {
    let value = match &knob.value {
        Ok(value) => value.clone(),
        Err(reason) => format!("? ({reason})"),
    };
    let mut lines = vec![format!("{} = {value}", knob.name)];
    let mut line = |word: &str, text: &str| lines.push(format!("  {word:<8} {text}"));
    line("advised:", &knob.advised);
    line("why:", &knob.why);
    if !knob.steps.is_empty() {
        line("set:", &knob.set());
    }
    line("verify:", &knob.verify);
    line("undo:", &knob.undo());
    lines
}

/// How many there are of each.
pub fn summary(knobs: &[Knob]) -> String {
    let count = |verdict| knobs.iter().filter(|knob| knob.verdict == verdict).count();
    format!(
        "{} knobs: {} as advised, {} not, {} could not be read, {} not to be set here",
        knobs.len(),
        count(Verdict::Good),
        count(Verdict::Differs),
        count(Verdict::Unread),
        count(Verdict::Absent),
    )
}

/// One object, for programs.
pub fn json(knobs: &[Knob]) -> Value {
    let knob = |knob: &Knob| {
        json!({
            "name": knob.name,
            "value": knob.value.as_ref().ok(),
            "unread": knob.value.as_ref().err(),
            "advised": knob.advised,
            "verdict": knob.verdict.word(),
            "why": knob.why,
            "set": knob.steps.iter().filter_map(|step| step.set()).collect::<Vec<_>>(),
            "verify": knob.verify,
            "undo": knob.undo(),
        })
    };
    json!({ "version": 1, "knobs": knobs.iter().map(knob).collect::<Vec<_>>() })
}
