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
///
/// A script reads the old value where it is applied, not from here: machines start again, and
/// scripts are made anew.
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
    /// A file that a later step of the knob loses: it is kept, and written back after it.
    Keep {
        /// Its path.
        path: String,
        /// What it says now.
        from: String,
    },
    /// An interrupt goes to other cores.
    Interrupt {
        /// What it is called in `/proc/interrupts`: numbers change when the machine starts.
        action: String,
        /// Its number now.
        number: usize,
        /// The list of its cores now.
        from: String,
        /// The list of those it is to go to.
        to: String,
    },
    /// Shell commands are run.
    Run {
        /// A name for the value, such as `eth0 queues`.
        name: String,
        /// The command that prints the value.
        read: String,
        /// The command that sets it to what comes as `$1`.
        set: String,
        /// The value now.
        from: String,
        /// What it is to be.
        to: String,
        /// What else that does; empty: nothing.
        warning: &'static str,
    },
    /// A person does it: no script can, or none should.
    ByHand {
        /// What is to be done.
        set: String,
        /// What undoes it.
        undo: String,
    },
}

impl Step {
    /// The command that sets, or what a person does; `None` if it only keeps.
    pub fn set(&self) -> Option<String> {
        Some(match self {
            Step::Keep { .. } => return None,
            Step::Write { path, to, .. } => write(path, to),
            Step::Interrupt { number, to, .. } => write(&affinity(*number), to),
            Step::Run { set, to, .. } => set.replace("$1", &quoted(to)),
            Step::ByHand { set, .. } => set.clone(),
        })
    }

    /// The command that undoes, or what a person does.
    pub fn undo(&self) -> String {
        match self {
            Step::Write { path, from, .. } | Step::Keep { path, from } => write(path, from),
            Step::Interrupt { number, from, .. } => write(&affinity(*number), from),
            Step::Run { set, from, .. } => set.replace("$1", &quoted(from)),
            Step::ByHand { undo, .. } => undo.clone(),
        }
    }
}

/// The file with the cores of an interrupt.
fn affinity(number: usize) -> String {
    format!("/proc/irq/{number}/smp_affinity_list")
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
        self.steps.iter().rev().map(Step::undo).collect::<Vec<_>>().join(" && ")
    }

    /// How it is set; empty unless it differs.
    pub fn set(&self) -> String {
        self.steps.iter().filter_map(Step::set).collect::<Vec<_>>().join(" && ")
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
