//! What packages are made of.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

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
    let scripts = root().join("packaging/debian");
    let list = |name| fs::read_to_string(scripts.join(name)).unwrap();
    let named = list("berth.install") + &list("berth.docs");
    // The last word of each line of the first is where it goes; what is made is made by
    // the script that makes the package.
    let sources = named.lines().flat_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words[..words.len().max(2) - 1].to_vec()
    });
    let made = |source: &str| source == "berth" || source.starts_with("completions/");
    for source in sources.filter(|source| !made(source)) {
        assert!(root().join(source).exists(), "{source}");
    }
    for script in ["berth.postinst", "berth.prerm", "berth.postrm", "build"] {
        let checked = run("sh", &["-n", scripts.join(script).to_str().unwrap()]);
        assert!(checked.status.success(), "{checked:?}");
    }
}

#[test]
fn guest_host_tells_its_service_manager_when_it_is_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let file = "[main_storage]\nsize = \"64M\"\n\n[[partition]]\nname = \"a\"\nsize = \"32M\"\n\
                image = \"minimal\"\nautostart = false\n";
    fs::write(path("berth.toml"), file).unwrap();
    let manager = UnixDatagram::bind(path("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    let mut host = Command::new(env!("CARGO_BIN_EXE_berth"))
        .args(["up", "-f", path("berth.toml").to_str().unwrap()])
        .env("BERTH_STATE_DIR", path("state"))
        .env("NOTIFY_SOCKET", path("notify"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = [0; 64];
    let count = manager.recv(&mut said).unwrap();
    assert_eq!(String::from_utf8_lossy(&said[..count]).trim_end(), "READY=1");
    // Then it is up, and ends as the manager ends services.
    let status = Command::new(env!("CARGO_BIN_EXE_berth"))
        .args(["status", "--json"])
        .env("BERTH_STATE_DIR", path("state"))
        .output()
        .unwrap();
    assert!(status.status.success(), "{status:?}");
    assert!(run("kill", &["-TERM", &host.id().to_string()]).status.success());
    assert!(host.wait().unwrap().success());
}
