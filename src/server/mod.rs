//! Wiring: workers, configuration, start-up, signals. The only layer that speaks.

/// Runs the program: its arguments, its exit code.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
