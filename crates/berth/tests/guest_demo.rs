//! The demonstration, whole: it fails by itself if a guest lost anything.

use std::process::{Command, Stdio};

#[test]
fn guest_demonstration_shows_every_command_and_loses_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_berth"))
        .args(["demo", "--full"])
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for shown in [
        "lpar2 moved from 128M to 192M",
        "lpar2      192M      256M       61M  running",
        "lpar1 expanded from 128M to 192M",
        "lpar2 expanded from 256M to 317M",
        "lpar1 (192M) moved from 0 to 317M",
        "$ berth compact",
        "a program that ran in lpar1 all the time",
        "a program that ran in lpar2 all the time",
    ] {
        assert!(said.contains(shown), "{shown:?} is missing in\n{said}");
    }
}
