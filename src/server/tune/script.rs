//! A shell script that sets what is not as advised, and sets it back.

use super::knob::{Knob, Step, Verdict, quoted};

const HEAD: &str = "\
#!/bin/sh
# Made by `ring53 tune script` on one machine, for it, from what it read there.
#
#   apply   sets what was not as advised
#   undo    writes back what was read
#   show    prints the files that either writes
#
# Nothing is kept over a restart of the machine. It may be run again: what is set stays set. What
# fails is said, the rest is done, and the exit status is 1.
set -u
failed=0

# put FILE VALUE
put() {
    if printf '%s\\n' \"$2\" 2>/dev/null >\"$1\"; then return; fi
    echo \"$1: cannot write $2 (root? or the kernel refuses it)\" >&2
    failed=1
}

# run COMMAND: as a shell has it
run() {
    if sh -c \"$1\"; then return; fi
    echo \"failed: $1\" >&2
    failed=1
}

show() { printf '%s = %s\\n' \"$1\" \"$(cat \"$1\" 2>/dev/null || echo '?')\"; }
";

const TAIL: &str = "\
case ${1:-} in
    apply) apply ;;
    undo) undo ;;
    show) show_all ;;
    *)
        echo \"usage: sh $0 apply|undo|show\" >&2
        exit 2
        ;;
esac
exit $failed
";

/// The script for these knobs.
pub fn script(knobs: &[Knob]) -> String {
    let differs: Vec<&Knob> =
        knobs.iter().filter(|knob| knob.verdict == Verdict::Differs).collect();
    let mut text = String::from(HEAD);
    text += "\napply() {\n    :\n";
    for knob in &differs {
        let value = knob.value.as_deref().unwrap_or("?");
        text += &comment(&format!("{}: {value}; advised: {}", knob.name, knob.advised));
        text += &comment(&format!("Why: {}.", knob.why));
        text += &comment(&format!("Verify: {}.", knob.verify));
        for step in &knob.steps {
            text += &match step {
                Step::Write { path, to, .. } => {
                    format!("    put {} {}\n", quoted(path), quoted(to))
                }
                Step::Run { set, .. } => format!("    run {}\n", quoted(set)),
                Step::ByHand { set, .. } => comment(&format!("By hand: {set}.")),
            };
        }
    }
    text +=
        "}\n\n# In the opposite order; queues that come back have their masks written with them.\n";
    text += "undo() {\n    :\n";
    for knob in differs.iter().rev() {
        text += &comment(&knob.name);
        for step in knob.steps.iter().rev() {
            text += &match step {
                Step::Write { path, from, .. } => {
                    format!("    put {} {}\n", quoted(path), quoted(from))
                }
                Step::Run { undo, .. } => format!("    run {}\n", quoted(undo)),
                Step::ByHand { undo, .. } => comment(&format!("By hand: {undo}.")),
            };
        }
    }
    text += "}\n\nshow_all() {\n    :\n";
    for step in differs.iter().flat_map(|knob| &knob.steps) {
        if let Step::Write { path, .. } = step {
            text += &format!("    show {}\n", quoted(path));
        }
    }
    text += "}\n\n";
    text += TAIL;
    text
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
