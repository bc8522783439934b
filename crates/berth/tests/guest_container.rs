//! The container recipe, built upon a system from the distribution's packages, and its
//! host run in a user namespace without privileges or devices.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/pc.rs"]
mod pc;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pc::{image, output, package, system};
use serde_json::{Value, json};

const HOST: &str = r#"
[main_storage]
size = "256M"

[[partition]]
name = "a"
origin = "0"
size = "112M"
image = "minimal"
"#;

/// The first user in the container is this one of the machine's, and so on.
const FIRST_USER: u32 = 20_000;
/// The user that the recipe makes.
const USER: u32 = 10_000;

/// Images and containers of the test's own.
struct Containers(tempfile::TempDir);

impl Containers {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn buildah(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.path("storage")).arg("--runroot").arg(self.path("run"));
        output(command.args(["--storage-driver", "vfs"]).args(arguments)).trim().to_owned()
    }

    /// The container's runtime. It takes no machine that has control groups of both
    /// versions, so it does not see the second where there is the first.
    fn crun(&self) -> Command {
        let alone = "umount /sys/fs/cgroup/unified 2>/dev/null; exec crun \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", alone, "sh", "--cgroup-manager", "disabled"]);
        command.arg("--root").arg(self.path("crun"));
        command
    }

    /// What the program in the container says to these arguments.
    fn berth(&self, arguments: &[&str]) -> Result<String, String> {
        let mut exec = self.crun();
        exec.args(["exec", "--user", &format!("{USER}:{USER}"), "host", "/usr/bin/berth"]);
        let done = exec.args(arguments).output().unwrap();
        let said = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() { Ok(said(&done.stdout)) } else { Err(said(&done.stderr)) }
    }
}

/// How the image says it is run, without privileges.
fn bundle(image: &Value, root: &str, state: &Path, etc: &Path) -> Value {
    let config = &image["OCIv1"]["config"];
    let words = |name: &str| config[name].as_array().unwrap().clone();
    let args = [words("Entrypoint"), words("Cmd")].concat();
    let mount = |to: &str, kind: &str| json!({"destination": to, "type": kind, "source": kind});
    let bind = |from: &Path, to: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["bind"]});
    let users = json!([{"containerID": 0, "hostID": FIRST_USER, "size": 20_000}]);
    let namespaces = ["user", "mount", "pid", "ipc", "uts", "network"];
    let namespaces = namespaces.map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": USER, "gid": USER},
            "args": args,
            "env": words("Env"),
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {},
        },
        "root": {"path": root, "readonly": true},
        "mounts": [
            mount("/proc", "proc"), mount("/dev", "tmpfs"), mount("/tmp", "tmpfs"),
            bind(state, "/var/lib/berth"), bind(etc, "/etc/berth"),
        ],
        "linux": {
            "namespaces": namespaces,
            "uidMappings": users,
            "gidMappings": users,
        },
    })
}

fn ended(mut host: Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if let Some(status) = host.try_wait().unwrap() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = host.kill();
    false
}

#[test]
fn guest_runs_in_a_container_without_privileges() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test runs a container as users of its own: run it as root"
    );
    let containers = Containers(tempfile::tempdir().unwrap());
    let packages = containers.path("packages");
    package(&packages);
    let base = containers.buildah(&["from", "scratch"]);
    containers.buildah(&["add", "--quiet", &base, system().to_str().unwrap(), "/"]);
    containers.buildah(&["commit", "--quiet", &base, "localhost/debian"]);
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/Containerfile");
    containers.buildah(&[
        "build-using-dockerfile",
        "--isolation=chroot",
        "--build-arg=BASE=localhost/debian",
        "--tag=berth",
        "--file",
        recipe.to_str().unwrap(),
        packages.to_str().unwrap(),
    ]);

    let built: Value = serde_json::from_str(&containers.buildah(&["inspect", "berth"])).unwrap();
    let root = containers.buildah(&["from", "berth"]);
    let root = containers.buildah(&["mount", &root]);
    let (state, etc) = (containers.path("state"), containers.path("etc"));
    let images = state.join("data/berth/images");
    fs::create_dir_all(&images).unwrap();
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("berth.toml"), HOST).unwrap();
    output(Command::new("cp").arg("-a").args([&image("minimal"), &images]));
    let owner = format!("{0}:{0}", FIRST_USER + USER);
    output(Command::new("chown").args(["-R", &owner]).args([&state, &etc]));
    // Whoever runs it without privileges must find his way there.
    let on_the_way = ["", "storage", "storage/vfs", "storage/vfs/dir"];
    output(Command::new("chmod").arg("711").args(on_the_way.map(|name| containers.path(name))));
    let config = bundle(&built, &root, &state, &etc);
    let path = containers.path("bundle");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("config.json"), config.to_string()).unwrap();

    let log = fs::File::create(containers.path("log")).unwrap();
    let host = containers
        .crun()
        .args(["run", "--bundle", path.to_str().unwrap(), "host"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(180);
    let machine = loop {
        match containers.berth(&["exec", "a", "--", "uname", "-m"]) {
            Ok(said) => break said,
            Err(error) => assert!(
                Instant::now() < deadline,
                "{error}\n{}",
                fs::read_to_string(containers.path("log")).unwrap()
            ),
        }
        std::thread::sleep(Duration::from_millis(250));
    };
    assert_eq!(machine.trim(), "riscv64");
    containers.berth(&["move", "a", "--to", "64M"]).unwrap();
    let status: Value =
        serde_json::from_str(&containers.berth(&["status", "--json"]).unwrap()).unwrap();
    assert!(status.to_string().contains("\"running\""), "{status}");
    output(containers.crun().args(["kill", "host", "TERM"]));
    assert!(ended(host), "{}", fs::read_to_string(containers.path("log")).unwrap());
}
