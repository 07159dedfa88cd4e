//! A UDP echo: what the kernel alone costs.

use std::process::Command;

use super::{Contender, Role, command};

/// The echo of this program.
pub const CONTENDER: Contender = Contender {
    name: "echo",
    title: "UDP echo",
    role: Role::Echo,
    asks: &[],
    programs: &["ring53-bench"],
    settings: "ring53's recvmmsg path, no answer",
    version: || Ok(format!("ring53-bench {}", env!("CARGO_PKG_VERSION"))),
    prepare: |place| {
        let mut echo: Command = command("ring53-bench")?;
        echo.args(["echo", "--listen", &format!("{}:53", place.address)]);
        // Two days: longer than any comparison.
        echo.args(["--core", &place.core.to_string(), "--seconds", "172800"]);
        Ok(echo)
    },
    reload: |_, _| Ok(()),
};
