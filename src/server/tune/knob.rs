//! A knob: what it is set to, what is advised, why, how to verify, how to undo.

use super::source::Read;

/// What is to be said of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As advised.
    Good,
    /// Not as advised.
    Differs,
    /// Nobody could read it.
    Unread,
    /// There is no such thing on this machine, or nothing to gain from it.
    Absent,
}

impl Verdict {
    /// The word in output.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Good => "good",
            Verdict::Differs => "differs",
            Verdict::Unread => "unread",
            Verdict::Absent => "absent",
        }
    }
}

/// How a value is changed, and changed back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file is written.
    Write {
        /// Its path.
        path: String,
        /// What it says now.
        from: String,
        /// What it is to say.
        to: String,
    },
    /// Shell commands are run.
    Run {
        /// Those that set.
        set: String,
        /// Those that undo.
        undo: String,
    },
    /// A person does it: no script can.
    ByHand {
        /// What is to be done.
        set: String,
        /// What undoes it.
        undo: String,
    },
}

impl Step {
    /// The command that sets, or what a person does.
    pub fn set(&self) -> String {
        match self {
            Step::Write { path, to, .. } => write(path, to),
            Step::Run { set, .. } | Step::ByHand { set, .. } => set.clone(),
        }
    }

    /// The command that undoes, or what a person does.
    pub fn undo(&self) -> String {
        match self {
            Step::Write { path, from, .. } => write(path, from),
            Step::Run { undo, .. } | Step::ByHand { undo, .. } => undo.clone(),
        }
    }
}

/// The command that writes a file: with sysctl(8) where it is one of its.
fn write(path: &str, value: &str) -> String {
    match path.strip_prefix("/proc/sys/") {
        Some(name) => format!("sysctl -w {}={}", name.replace('/', "."), quoted(value)),
        None => format!("echo {} >{}", quoted(value), quoted(path)),
    }
}

/// One word of a shell, whatever is in it. What needs no quotes gets none.
pub fn quoted(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-,:+=@".contains(letter);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_string();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// One knob.
#[derive(Clone, Debug)]
pub struct Knob {
    /// `net.core.rmem_max`, `eth0 rps_cpus`.
    pub name: String,
    /// What it is set to, or why that is not known.
    pub value: Read<String>,
    /// What is advised for the role.
    pub advised: String,
    /// How the two compare.
    pub verdict: Verdict,
    /// Why it is advised.
    pub why: String,
    /// How to see that it does what it should.
    pub verify: String,
    /// What changes it; empty unless it differs.
    pub steps: Vec<Step>,
    /// How to get back, where nothing is changed.
    pub back: String,
}

impl Knob {
    /// A knob of which nothing is known yet.
    pub fn new(name: impl Into<String>, why: impl Into<String>, verify: impl Into<String>) -> Knob {
        Knob {
            name: name.into(),
            value: Ok(String::new()),
            advised: String::new(),
            verdict: Verdict::Absent,
            why: why.into(),
            verify: verify.into(),
            steps: Vec::new(),
            back: "nothing to undo".into(),
        }
    }

    /// It is as advised.
    pub fn good(mut self, value: impl Into<String>, advised: impl Into<String>) -> Knob {
        (self.value, self.advised) = (Ok(value.into()), advised.into());
        self.verdict = Verdict::Good;
        self
    }

    /// It is not as advised, and `steps` change that.
    pub fn differs(
        mut self,
        value: impl Into<String>,
        advised: impl Into<String>,
        steps: Vec<Step>,
    ) -> Knob {
        (self.value, self.advised) = (Ok(value.into()), advised.into());
        (self.verdict, self.steps) = (Verdict::Differs, steps);
        self
    }

    /// Good if there are no steps to take.
    pub fn settle(self, value: String, advised: impl Into<String>, steps: Vec<Step>) -> Knob {
        if steps.is_empty() {
            self.good(value, advised)
        } else {
            self.differs(value, advised, steps)
        }
    }

    /// It could not be read.
    pub fn unread(mut self, reason: impl Into<String>, advised: impl Into<String>) -> Knob {
        (self.value, self.advised) = (Err(reason.into()), advised.into());
        self.verdict = Verdict::Unread;
        self
    }

    /// It is not on this machine, or not of use there.
    pub fn absent(mut self, reason: impl Into<String>) -> Knob {
        (self.value, self.advised) = (Err(reason.into()), "nothing".into());
        self.verdict = Verdict::Absent;
        self
    }

    /// How to get back to what most machines have.
    pub fn back(mut self, how: impl Into<String>) -> Knob {
        self.back = how.into();
        self
    }

    /// How it is undone.
    pub fn undo(&self) -> String {
        if self.steps.is_empty() {
            return self.back.clone();
        }
        self.steps.iter().rev().map(Step::undo).collect::<Vec<_>>().join("; ")
    }

    /// How it is set; empty unless it differs.
    pub fn set(&self) -> String {
        self.steps.iter().map(Step::set).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell() {
        assert_eq!(quoted("/proc/sys/net/core/rmem_max"), "/proc/sys/net/core/rmem_max");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("e$(x)'"), r"'e$(x)'\'''");
        assert_eq!(quoted(""), "''");
    }
}
