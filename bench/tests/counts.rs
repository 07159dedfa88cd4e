//! The instructions of answering are those that `bench/counts.toml` records. Needs valgrind; builds
//! the program with the profile `counts`.

use std::path::Path;
use std::process::Command;

#[test]
fn counts_are_as_recorded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--profile", "counts", "--package", "ring53-bench"])
        .args(["--bin", "ring53-bench", "--", "counts", "check"])
        .current_dir(root)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    println!("{said}");
    assert!(output.status.success(), "{said}");
}
