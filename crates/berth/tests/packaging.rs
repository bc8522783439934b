//! What packages are made of.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn manual(directory: &Path) -> BTreeSet<String> {
    let done = run(env!("CARGO_BIN_EXE_berth"), &["man", directory.to_str().unwrap()]);
    assert!(done.status.success(), "{done:?}");
    let pages = fs::read_dir(directory).unwrap();
    pages.map(|page| page.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let pages = manual(&directory.path().join("man"));
    for name in ["berth.1", "berth-up.1", "berth-move.1", "berth-api-token.1", "berth-bench-api.1"]
    {
        assert!(pages.contains(name), "{name} is missing in {pages:?}");
    }
    // What only the host starts is nobody's command.
    for name in ["berth-worker.1", "berth-keeper.1", "berth-man.1"] {
        assert!(!pages.contains(name), "{name}");
    }
    let page = fs::read_to_string(directory.path().join("man/berth-move.1")).unwrap();
    assert!(page.starts_with(".ie") && page.contains(".SH OPTIONS") && page.contains("dry\\-run"));
    // And nothing in them is wrong.
    for page in pages {
        let path = directory.path().join("man").join(&page);
        let output =
            run("man", &["--warnings", "-E", "UTF-8", "-l", "-Tutf8", path.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{page}: {said}");
    }
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let directory = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(root().join("packaging/berth.service")).unwrap();
    // The program that was just built is where it will be.
    let built = format!("ExecStart={}", env!("CARGO_BIN_EXE_berth"));
    let unit =
        unit.replace("ExecStart=/usr/bin/berth", &built).replace("man:berth(1)", "file:/dev/null");
    let path = directory.path().join("berth.service");
    fs::write(&path, unit).unwrap();
    let said = run("systemd-analyze", &["verify", "--man=no", path.to_str().unwrap()]);
    assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
    let offline = ["security", "--offline=yes", "--threshold=40", path.to_str().unwrap()];
    let said = run("systemd-analyze", &offline);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
}

#[test]
fn what_the_package_names_is_there() {
    let manifest: toml::Table =
        fs::read_to_string(root().join("crates/berth/Cargo.toml")).unwrap().parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let assets = deb["assets"].as_array().unwrap();
    let sources = assets.iter().map(|asset| asset[0].as_str().unwrap());
    // What is made is made by the script that makes the package.
    for source in sources.filter(|source| !source.contains("target/")) {
        let directory = root().join("crates/berth").join(source);
        let directory = directory.parent().unwrap();
        let end = source.rsplit('/').next().unwrap().trim_start_matches('*');
        let found = fs::read_dir(directory).unwrap_or_else(|error| panic!("{source}: {error}"));
        let mut names = found.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(names.any(|name| name.ends_with(end)), "{source}");
    }
    let scripts = root().join("packaging/debian");
    for script in ["postinst", "postrm", "build"] {
        let checked = run("sh", &["-n", scripts.join(script).to_str().unwrap()]);
        assert!(checked.status.success(), "{checked:?}");
    }
    assert!(root().join("packaging/berth.service").exists());
}
