//! A shell script that sets what is not as advised, and sets it back.
//!
//! ```text
//!   apply:  value ──read──> as wanted? ── no ──> kept in the state, once ──> set
//!   undo:   state, last line first ──> set ──> state gone
//! ```
//!
//! What is undone comes from the state alone: a script made later, when less differs, undoes what
//! an earlier one set.

use super::knob::{Knob, Step, Verdict, quoted};

const HEAD: &str = include_str!("script.sh");

const TAIL: &str = r#"case $mode in
    apply)
        if ! true >>"$state"; then
            echo "$state: cannot keep old values there (root?): nothing is set" >&2
            exit 1
        fi
        knobs
        [ -s "$state" ] || rm -f "$state"
        ;;
    show) knobs ;;
    undo) undo ;;
    *)
        echo "usage: sh $0 apply|undo|show" >&2
        exit 2
        ;;
esac
exit $failed
"#;

/// The script for these knobs.
pub fn script(knobs: &[Knob]) -> String {
    let differs = knobs.iter().filter(|knob| knob.verdict == Verdict::Differs);
    let mut text = String::from(HEAD);
    text += "\nknobs() {\n    :\n";
    for knob in differs {
        let value = knob.value.as_deref().unwrap_or("?");
        text += &comment(&format!("{}: {value}; advised: {}", knob.name, knob.advised));
        text += &comment(&format!("Why: {}.", knob.why));
        text += &comment(&format!("Verify: {}.", knob.verify));
        knob.steps.iter().for_each(|step| text += &line(step));
    }
    text += "}\n\n";
    text += TAIL;
    text
}

/// The line that takes a step.
fn line(step: &Step) -> String {
    let words = match step {
        Step::ByHand { set, undo } => {
            return comment(&format!("By hand: {set}.")) + &comment(&format!("Undo: {undo}."));
        }
        Step::Write { path, to, .. } => vec!["change", "file", path, to],
        Step::Keep { path, .. } => vec!["keep", "file", path],
        Step::Interrupt { action, to, .. } => vec!["change", "interrupt", action, to],
        Step::Run { name, read, set, to, warning, .. } => {
            vec!["change", "command", name, to, read, set, warning]
        }
    };
    format!("    {}\n", words.into_iter().map(quoted).collect::<Vec<_>>().join(" "))
}

/// A comment in as many lines as it takes. What machines say may have anything in it: control
/// characters would end the comment.
fn comment(text: &str) -> String {
    const COLUMNS: usize = 92;
    let mut lines = String::from("    #");
    let mut column = 0;
    for word in text.split(|letter: char| letter.is_whitespace() || letter.is_control()) {
        if column + word.len() > COLUMNS {
            lines += "\n    #  ";
            column = 2;
        }
        lines += " ";
        lines += word;
        column += word.len() + 1;
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_says_stays_in_its_comment() {
        let text = comment(&format!("a\nreboot {}\r\u{b}x", "long ".repeat(60)));
        assert!(text.lines().all(|line| line.starts_with("    #") && line.len() <= 104), "{text}");
        assert!(text.lines().count() > 2);
    }
}
