//! What the program says where no guest is needed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output};

fn berth(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_berth"))
        .current_dir(directory)
        .env("BERTH_STATE_DIR", directory.join("state"))
        .args(arguments)
        .output()
        .unwrap()
}

fn refused(output: &Output, status: i32) -> String {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn up_without_a_host_file_teaches_to_write_one() {
    let dir = tempfile::tempdir().unwrap();
    let said = refused(&berth(dir.path(), &["up"]), 1);
    assert!(said.contains("no host file berth.toml") && said.contains("[[partition]]"), "{said}");
    // What it teaches is accepted but for what it takes to run it.
    let lines = said.lines().skip_while(|line| !line.contains("[main_storage]"));
    let example: Vec<_> = lines.take_while(|line| !line.starts_with("Write")).collect();
    host::HostFile::parse(&example.join("\n")).unwrap();
}

#[test]
fn a_bad_host_file_is_refused_with_file_and_line_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[main_storage]\nsize = \"64M\"\n[[partition]]\nname = \"a\"\nsize = \"65M\"\nimage = \"minimal\"\n";
    std::fs::write(dir.path().join("berth.toml"), text).unwrap();
    let said = refused(&berth(dir.path(), &["up", "--detach"]), 1);
    assert!(said.contains("berth.toml: line 5") && said.contains("64M"), "{said}");
    assert!(!dir.path().join("state").exists());
}

#[test]
fn an_image_nobody_knows_is_refused_with_the_partitions_line() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[main_storage]\nsize = \"64M\"\n[[partition]]\nname = \"a\"\nsize = \"64M\"\nimage = \"no-such-image\"\n";
    std::fs::write(dir.path().join("berth.toml"), text).unwrap();
    let said = refused(&berth(dir.path(), &["up", "--detach"]), 1);
    assert!(said.contains("line 3") && said.contains("no-such-image"), "{said}");
}

#[test]
fn without_a_host_commands_fail_and_say_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["status"][..], &["down"], &["start", "a"], &["move", "a", "--to", "1M"]] {
        let said = refused(&berth(dir.path(), arguments), 1);
        assert!(said.contains("berth up"), "{arguments:?}: {said}");
    }
    let output = berth(dir.path(), &["status", "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["result"], "failed");
}

#[test]
fn wrong_usage_is_status_2() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &[][..],
        &["fly"],
        &["move", "a"],
        &["move", "a", "--to", "12MB"],
        &["exec", "a"],
        &["up", "--no-wait"],
    ] {
        assert_eq!(berth(dir.path(), arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_state_directory_with_too_long_a_name_is_refused_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("d".repeat(120));
    let said = refused(&berth(dir.path(), &["--state-dir", long.to_str().unwrap(), "status"]), 1);
    assert!(said.contains("--state-dir") && said.contains("too long"), "{said}");
}

#[test]
fn completion_scripts_know_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = berth(dir.path(), &["completion", shell]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("move"), "{shell}");
    }
}

#[test]
fn tokens_are_made_listed_and_revoked_without_a_host() {
    let dir = tempfile::tempdir().unwrap();
    let said = |arguments: &[&str]| {
        let output = berth(dir.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let token = said(&["api", "token", "--role", "operator", "--days", "3", "--note", "ci"]);
    let id = token.split('_').nth(1).unwrap();
    let listed = said(&["api", "tokens"]);
    assert!(
        listed.contains(id) && listed.contains("operator") && listed.contains("ci"),
        "{listed}"
    );
    let secret = token.trim().splitn(3, '_').nth(2).unwrap();
    let kept = std::fs::read_to_string(dir.path().join("state/api_tokens.toml")).unwrap();
    assert!(!listed.contains(secret) && !kept.contains(secret), "the token itself is kept");
    said(&["api", "revoke", id]);
    assert!(!said(&["api", "tokens"]).contains(id));
    refused(&berth(dir.path(), &["api", "revoke", id]), 1);
    assert!(said(&["api", "openapi"]).contains("\"openapi\": \"3.1"));
}

#[test]
fn the_doctor_names_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let well = berth(dir.path(), &["doctor"]);
    let text = String::from_utf8(well.stdout).unwrap();
    assert!(text.contains("host") && text.contains("`berth up` starts one"), "{text}");
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("users.toml"), "").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(state.join("users.toml"), mode).unwrap();
    let ill = berth(dir.path(), &["doctor", "--json"]);
    assert_eq!(ill.status.code(), Some(1));
    let text = String::from_utf8(ill.stdout).unwrap();
    assert!(text.contains("chmod 600"), "{text}");
}
