//! A PostgreSQL of a test's own: a cluster in a temporary directory, reached by
//! its Unix socket only. The programs are those of the distribution's package.

#![expect(clippy::panic, clippy::expect_used, reason = "tests fail so, and say what is missing")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The password of the cluster's superuser, `postgres`.
const PASSWORD: &str = "of the cluster";
/// How long a server may take to begin or end.
const LIMIT: Duration = Duration::from_secs(60);
/// The port in the name of its socket.
const PORT: u16 = 5432;

/// A server; it ends with this.
pub struct TestServer {
    dir: TempDir,
    programs: PathBuf,
    child: Option<Child>,
}

impl Default for TestServer {
    fn default() -> Self {
        Self::start()
    }
}

impl TestServer {
    /// A new cluster, whose roles log in by password.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let password = dir.path().join("password");
        fs::write(&password, PASSWORD).expect("the password's file");
        if let Some((user, group)) = unprivileged() {
            for path in [dir.path(), &password] {
                chown(path, Some(user), Some(group)).expect("giving the directory away");
            }
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("its mode");
        let mut server = Self { dir, programs: programs(), child: None };
        let made = server
            .program("initdb")
            .args(["--username=postgres", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8"])
            .args(["--locale=C", "--pwfile"])
            .arg(&password)
            .arg(server.data())
            .output()
            .expect("initdb can be run");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.begin();
        server
    }

    /// Starts it again after [`TestServer::stop`].
    ///
    /// # Panics
    /// When it does not start.
    pub fn begin(&mut self) {
        let log = fs::File::create(self.dir.path().join("log")).expect("its log");
        let child = self
            .program("postgres")
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.dir.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres can be run");
        self.child = Some(child);
        let deadline = Instant::now() + LIMIT;
        while self.try_sql("postgres", "SELECT 1").is_err() {
            assert!(Instant::now() < deadline, "PostgreSQL does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it at once, as its administrator would: connections end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(&child, rustix::process::Signal::INT);
        let deadline = Instant::now() + LIMIT;
        while child.try_wait().expect("its end").is_none() {
            assert!(Instant::now() < deadline, "PostgreSQL does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it listens, as a host file names it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{PORT}", self.dir.path().display())
    }

    /// Makes a role that can log in, with a database of its own of the same name,
    /// and gives the line that a file of credentials has for it.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn add_role(&self, role: &str) -> String {
        let password = format!("secret of {role}");
        self.sql("postgres", &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD '{password}'"));
        self.sql("postgres", &format!("CREATE DATABASE \"{role}\" OWNER \"{role}\""));
        format!("*:*:*:{role}:{password}\n")
    }

    /// What a superuser gets for these statements: rows as lines, `|` between
    /// fields.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        match self.try_sql(database, statements) {
            Ok(text) => text,
            Err(text) => panic!("{statements}: {text}"),
        }
    }

    fn try_sql(&self, database: &str, statements: &str) -> Result<String, String> {
        let output = Command::new(self.programs.join("psql"))
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c"])
            .arg(statements)
            .arg("-h")
            .arg(self.dir.path())
            .env("PGPASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .output()
            .expect("psql can be run");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// One of the server's programs, which root may not run.
    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = match unprivileged() {
            None => Command::new(program),
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
                command.arg("--clear-groups").arg(program);
                command
            }
        };
        command.stdin(Stdio::null()).current_dir(self.dir.path());
        command
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // At once, without a last write: nobody reads it again.
        signal(&child, rustix::process::Signal::QUIT);
        let _ = child.wait();
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let process = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    // It fails only for a process that has ended.
    let _ = process.map(|process| rustix::process::kill_process(process, signal));
}

/// The newest of the distribution's PostgreSQL.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let numbered = versions.filter_map(|version| {
        let number: u32 = version.file_name().to_str()?.parse().ok()?;
        let programs = version.path().join("bin");
        programs.join("initdb").exists().then_some((number, programs))
    });
    match numbered.max() {
        Some((_, programs)) => programs,
        None => panic!("there is no PostgreSQL: apt-get install postgresql"),
    }
}

/// Whom the server runs as when the test is root: its package's own user.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string(Path::new("/etc/passwd")).unwrap_or_default();
    let numbers = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    assert!(numbers.is_some(), "there is no user postgres: apt-get install postgresql");
    numbers
}
