//! Running the host's programs and reading their complaints.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::BuildError;

/// What the host must have, and the Debian package that has it.
const NEEDED: [(&str, &str); 6] = [
    ("apt-get", "apt"),
    ("apt-config", "apt"),
    ("dpkg", "dpkg"),
    ("dpkg-deb", "dpkg"),
    ("gpgv", "gpgv"),
    ("tar", "tar"),
];

/// Checks that the host has all programs the builder runs. apt can do without
/// gpgv where it brings its own verifier (`sqv`).
pub(crate) fn check_host() -> Result<(), BuildError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> =
        std::env::split_paths(&path).chain(["/usr/bin", "/usr/sbin"].map(PathBuf::from)).collect();
    let found = |program: &str| dirs.iter().any(|dir| dir.join(program).is_file());
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(program, _)| !(found(program) || *program == "gpgv" && found("sqv")))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    Err(BuildError::MissingPrograms {
        programs: missing.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", "),
        packages: packages.join(" "),
    })
}

/// A command with an untranslated, quiet environment.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C.UTF-8").env_remove("LANGUAGE").stdin(Stdio::null());
    command
}

fn name_of(command: &Command) -> String {
    Path::new(command.get_program())
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The last lines of a program's output, enough to see the cause.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// Turns a program's complaint into an error; `dir` is where it was writing.
pub(crate) fn complaint(program: &str, output: &str, dir: &Path) -> BuildError {
    let full = ["No space left on device", "Disk quota exceeded", "not have enough free space"];
    if full.iter().any(|words| output.contains(words)) {
        return BuildError::disk_full(dir);
    }
    BuildError::Tool { program: program.to_owned(), output: tail(output) }
}

/// What a finished program left.
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end, handing each line of its output to `line`.
pub(crate) fn run_lines(
    command: &mut Command,
    mut line: impl FnMut(&str),
) -> Result<Outcome, BuildError> {
    let program = name_of(command);
    let spawn_error = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => {
            BuildError::MissingPrograms { programs: program.clone(), packages: program.clone() }
        }
        _ => BuildError::Tool { program: program.clone(), output: error.to_string() },
    };
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(spawn_error)?;
    let errors = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut errors) = errors {
            // A broken pipe only shortens the message.
            let _ = errors.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let mut stdout = String::new();
    if let Some(out) = child.stdout.take() {
        for text in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&text);
            line(&text);
            stdout.push_str(&text);
            stdout.push('\n');
        }
    }
    let status = child.wait().map_err(spawn_error)?;
    let stderr = reader.join().unwrap_or_default();
    Ok(Outcome { success: status.success(), stdout, stderr })
}

/// Runs a command that must succeed and gives its output; `dir` is where it
/// writes.
pub(crate) fn run(command: &mut Command, dir: &Path) -> Result<String, BuildError> {
    let outcome = run_lines(command, |_| {})?;
    if outcome.success {
        return Ok(outcome.stdout);
    }
    Err(complaint(&name_of(command), &format!("{}\n{}", outcome.stdout, outcome.stderr), dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_with_its_words() {
        let error = run(command("sh").args(["-c", "echo woe >&2; exit 3"]), Path::new("/d"));
        assert_eq!(error.unwrap_err().to_string(), "sh failed: woe");
    }

    #[test]
    fn a_programs_full_disk_is_told_as_such() {
        let error =
            run(command("sh").args(["-c", "cat /proc/self/status >/dev/full"]), Path::new("/d"));
        assert!(matches!(error, Err(BuildError::DiskFull(dir)) if dir == Path::new("/d")));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut command("no-such-program-here"), Path::new("/")).unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"));
    }
}
