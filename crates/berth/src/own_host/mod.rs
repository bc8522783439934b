//! A host of one's own: this program's commands on a state directory that is
//! gone afterwards. The demonstration and the benchmarks use Berth as anybody
//! would.

mod program;

use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use host::{StateDir, StateDirError};
use operator_client::{Client, ClientError, Place};
use tempfile::TempDir;

pub(crate) use program::GuestProgram;

/// Why a host of one's own did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnHostError {
    #[error("cannot make a directory for the host")]
    Directory(#[source] io::Error),
    #[error("cannot run {command}")]
    Run { command: String, source: io::Error },
    #[error("{command} ended with {status}")]
    Failed { command: String, status: ExitStatus },
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the program in {guest} said nothing for {seconds} s; is the guest alive?")]
    Silent { guest: String, seconds: u64 },
    #[error("the program in {guest} said something else than its report: {line}")]
    Report { guest: String, line: String, source: serde_json::Error },
}

/// The running host; dropping it brings it down and removes its directory.
pub(crate) struct OwnHost {
    program: PathBuf,
    directory: TempDir,
    up: bool,
}

impl OwnHost {
    /// Starts a host by `host_file`; its guests serve commands.
    pub(crate) fn up(host_file: &str) -> Result<Self, OwnHostError> {
        let program = std::env::current_exe()
            .map_err(|source| OwnHostError::Run { command: "berth".into(), source })?;
        let directory = tempfile::Builder::new().prefix("berth-own-").tempdir();
        let directory = directory.map_err(OwnHostError::Directory)?;
        let path = directory.path().join("berth.toml");
        std::fs::write(&path, host_file).map_err(OwnHostError::Directory)?;
        let mut host = Self { program, directory, up: false };
        host.up_again()?;
        Ok(host)
    }

    fn up_again(&mut self) -> Result<(), OwnHostError> {
        let file = self.directory.path().join("berth.toml");
        // A host that did not come up as a whole may be there.
        self.up = true;
        // What it prints is how to find it, and nobody needs to.
        self.run(&["up", "--detach", "-f", &file.to_string_lossy()], Stdio::null())
    }

    /// Ends it and starts it again by the same file; how long the start took.
    pub(crate) fn restart(&mut self) -> Result<Duration, OwnHostError> {
        self.run(&["down"], Stdio::null())?;
        let started = Instant::now();
        self.up_again()?;
        Ok(started.elapsed())
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Where its files are.
    pub(crate) fn state_dir(&self) -> Result<StateDir, OwnHostError> {
        Ok(StateDir::choose(Some(self.state()))?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // Whatever other host its user has in mind.
        command.env_remove("BERTH_HOST");
        command.arg("--state-dir").arg(self.state()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str], stdout: Stdio) -> Result<(), OwnHostError> {
        let command = format!("berth {}", arguments.join(" "));
        match self.command(arguments).stdout(stdout).status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(OwnHostError::Failed { command, status }),
            Err(source) => Err(OwnHostError::Run { command, source }),
        }
    }

    /// Runs a command under the user's eyes.
    pub(crate) fn show(&self, arguments: &[&str]) -> Result<(), OwnHostError> {
        println!("$ berth {}", arguments.join(" "));
        self.run(arguments, Stdio::inherit())
    }

    /// What a command prints.
    pub(crate) fn output(&self, arguments: &[&str]) -> Result<String, OwnHostError> {
        let command = format!("berth {}", arguments.join(" "));
        let output = self.command(arguments).stderr(Stdio::inherit()).output();
        match output {
            Ok(output) if output.status.success() => {
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            Ok(output) => Err(OwnHostError::Failed { command, status: output.status }),
            Err(source) => Err(OwnHostError::Run { command, source }),
        }
    }

    /// A client of it, which keeps its connection.
    pub(crate) fn client(&self) -> Result<Client, OwnHostError> {
        Ok(Client::new(&Place::Local(self.state_dir()?.api_socket()))?)
    }

    /// Ends it under the user's eyes.
    pub(crate) fn down(mut self) -> Result<(), OwnHostError> {
        self.up = false;
        self.show(&["down"])
    }
}

impl Drop for OwnHost {
    fn drop(&mut self) {
        if self.up {
            // The reason why we are here is what the user must see.
            let down = self.command(&["down"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
            drop(down);
        }
    }
}
