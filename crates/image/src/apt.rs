//! apt with directories of its own: the host's package state is neither read
//! nor changed, and no root is needed. apt itself verifies signatures against
//! the Debian archive keyring and every file against the signed hashes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::digest::file_digest;
use crate::error::{At, BuildError};
use crate::process::{command, complaint, run, run_lines};
use crate::progress::{Phase, Progress};
use crate::recipe::matches;

/// A package file as the signed index describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version, with its epoch.
    pub version: String,
    /// Architecture, or `all`.
    pub architecture: String,
    /// Name of the `.deb`.
    pub file: String,
    /// Length of the `.deb` in bytes.
    pub size: u64,
    /// SHA-256 of the `.deb`, in hexadecimal.
    pub sha256: String,
}

/// Which of the packages that apt would install are wanted.
pub(crate) enum Keep<'a> {
    /// Those matching, and no other.
    Only(&'a [&'a str]),
    /// All but those matching; what was asked for by name stays.
    Except(&'a [&'a str]),
}

/// What one installation would take.
pub(crate) struct Plan {
    architecture: String,
    /// What is wanted of it.
    pub(crate) packages: Vec<Package>,
    /// The rest.
    left_out: Vec<Package>,
}

/// Private apt directories for one suite of one mirror.
pub(crate) struct Apt {
    suite: String,
    dir: PathBuf,
    debs: PathBuf,
    host_architecture: String,
}

fn keyring() -> Result<&'static str, BuildError> {
    [
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "/usr/share/keyrings/debian-archive-keyring.pgp",
    ]
    .into_iter()
    .find(|path| Path::new(path).is_file())
    .ok_or(BuildError::MissingKeyring)
}

/// What of the host's settings concerns how files are fetched (proxies, time
/// limits); hooks and everything else stay out.
fn transport_settings(dump: &str) -> String {
    const KEPT: [&str; 4] =
        ["Acquire::http", "Acquire::https", "Acquire::ForceIPv", "Acquire::Check-"];
    dump.lines()
        .filter(|line| KEPT.iter().any(|prefix| line.starts_with(prefix)))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The thousandths done that a line of apt's status stream tells.
fn status_line(line: &str) -> Option<u64> {
    let mut fields = line.strip_prefix("dlstatus:")?.split(':');
    let percent: f64 = fields.nth(1)?.parse().ok()?;
    // In range by the clamp, so the cast is exact to the thousandth.
    Some((percent.clamp(0.0, 100.0) * 10.0) as u64)
}

/// A package from a line of `apt-get install --print-uris`.
fn plan_line(line: &str) -> Option<Package> {
    let mut fields = line.strip_prefix('\'')?.split_once("' ")?.1.split(' ');
    let (file, size, hash) = (fields.next()?, fields.next()?, fields.next()?);
    let mut parts = file.strip_suffix(".deb")?.splitn(3, '_');
    let (name, version, architecture) = (parts.next()?, parts.next()?, parts.next()?);
    if file.contains('/') {
        return None;
    }
    Some(Package {
        name: name.to_owned(),
        version: version.replace("%3a", ":"),
        architecture: architecture.to_owned(),
        file: file.to_owned(),
        size: size.parse().ok()?,
        sha256: hash.strip_prefix("SHA256:")?.to_owned(),
    })
}

impl Apt {
    /// Prepares the directories under `cache` for `suite` of `mirror`.
    pub(crate) fn prepare(
        cache: &Path,
        mirror: &str,
        suite: &str,
        host_architecture: &str,
    ) -> Result<Self, BuildError> {
        let dir = cache.join("apt").join(suite);
        let debs = cache.join("debs");
        let apt = Self {
            suite: suite.to_owned(),
            dir,
            debs,
            host_architecture: host_architecture.to_owned(),
        };
        for made in [
            apt.dir.join("lists/partial"),
            apt.dir.join("cache/archives/partial"),
            apt.debs.clone(),
        ] {
            fs::create_dir_all(&made).at(&made)?;
        }
        let source = format!(
            "Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n\
             Signed-By: {}\n",
            keyring()?
        );
        let host = transport_settings(&run(command("apt-config").arg("dump"), &apt.dir)?);
        for (file, text) in
            [("mirror.sources", source.as_str()), ("status", ""), ("host.conf", &host)]
        {
            fs::write(apt.dir.join(file), text).at(&apt.dir.join(file))?;
        }
        apt.write_settings(host_architecture, &host)?;
        apt.write_settings("riscv64", &host)?;
        Ok(apt)
    }

    /// The suite.
    pub(crate) fn suite(&self) -> &str {
        &self.suite
    }

    fn settings_file(&self, architecture: &str) -> PathBuf {
        self.dir.join(format!("{architecture}.conf"))
    }

    fn write_settings(&self, architecture: &str, host: &str) -> Result<(), BuildError> {
        let dir = self.dir.display();
        let text = format!(
            "Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n\
             Dir::Etc::sourcelist \"{dir}/mirror.sources\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
             Dir::State \"{dir}\";\nDir::State::lists \"{dir}/lists\";\n\
             Dir::State::status \"{dir}/status\";\nDir::Cache \"{dir}/cache\";\n\
             APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\n\
             APT::Install-Recommends \"false\";\nAPT::Sandbox::User \"\";\n\
             APT::Update::Error-Mode \"any\";\nAPT::Get::AllowUnauthenticated \"false\";\n\
             Acquire::AllowInsecureRepositories \"false\";\n\
             Acquire::AllowWeakRepositories \"false\";\n\
             Acquire::AllowDowngradeToInsecureRepositories \"false\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"3\";\n\
             Acquire::ForceHash \"SHA256\";\n{host}"
        );
        let file = self.settings_file(architecture);
        fs::write(&file, text).at(&file)
    }

    fn apt_get(&self, architecture: &str) -> Command {
        let mut apt = command("apt-get");
        apt.env("APT_CONFIG", self.settings_file(architecture));
        apt
    }

    /// Fetches and verifies the index of both architectures.
    pub(crate) fn update(&self, progress: &dyn Progress) -> Result<(), BuildError> {
        progress.phase(Phase::Index);
        for architecture in [self.host_architecture.as_str(), "riscv64"] {
            let mut apt = self.apt_get(architecture);
            // Each run would clean away the other architecture's index.
            apt.args(["update", "-o", "APT::Status-Fd=1", "-o", "APT::Get::List-Cleanup=false"]);
            let outcome = run_lines(&mut apt, |line| {
                if let Some(done) = status_line(line) {
                    progress.advance(done, 1000);
                }
            })?;
            if !outcome.success {
                return Err(complaint("apt-get update", &outcome.stderr, &self.dir));
            }
        }
        Ok(())
    }

    /// What apt would install for `ask` on an empty system, filtered.
    pub(crate) fn plan(
        &self,
        architecture: &str,
        ask: &[&str],
        keep: &Keep<'_>,
    ) -> Result<Plan, BuildError> {
        let mut apt = self.apt_get(architecture);
        let outcome = run_lines(apt.args(["install", "-y", "--print-uris"]).args(ask), |_| {})?;
        if !outcome.success {
            let reason = format!("{}{}", outcome.stdout, outcome.stderr);
            return Err(BuildError::Resolve { packages: ask.join(" "), reason });
        }
        let wanted = |package: &Package| match keep {
            Keep::Only(patterns) => patterns.iter().any(|p| matches(p, &package.name)),
            Keep::Except(patterns) => {
                ask.contains(&package.name.as_str())
                    || !patterns.iter().any(|p| matches(p, &package.name))
            }
        };
        // apt leaves out what lies in its archives directory; that one is
        // always empty, since downloads go elsewhere.
        let mut all: Vec<_> = outcome.stdout.lines().filter_map(plan_line).collect();
        all.sort_by(|a, b| a.file.cmp(&b.file));
        let (packages, left_out) = all.into_iter().partition(wanted);
        Ok(Plan { architecture: architecture.to_owned(), packages, left_out })
    }

    /// Where a package's file lies once it is downloaded.
    pub(crate) fn deb(&self, package: &Package) -> PathBuf {
        self.debs.join(&package.file)
    }

    fn is_intact(&self, package: &Package) -> bool {
        file_digest(&self.deb(package)).is_ok_and(|digest| digest == package.sha256)
    }

    /// Downloads what is not yet there; what is there is checked again. A
    /// file that broke off is taken up where it ended.
    pub(crate) fn download(&self, plan: &Plan, progress: &dyn Progress) -> Result<(), BuildError> {
        let missing: Vec<_> =
            plan.packages.iter().filter(|package| !self.is_intact(package)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        progress.phase(Phase::Download);
        let total: u64 = missing.iter().map(|package| package.size).sum();
        for package in &missing {
            // A damaged file would be kept for the sake of its size.
            let _ = fs::remove_file(self.deb(package));
        }
        let status = self.status_with(plan)?;
        let mut apt = self.apt_get(&plan.architecture);
        apt.args(["install", "-y", "--download-only", "-o", "APT::Status-Fd=1", "-o"]);
        apt.arg(format!("Dir::State::status={}", status.display()));
        apt.arg("-o").arg(format!("Dir::Cache::archives={}", self.debs.display()));
        apt.args(plan.packages.iter().map(|p| format!("{}={}", p.name, p.version)));
        let outcome = run_lines(&mut apt, |line| {
            if let Some(done) = status_line(line) {
                progress.advance(total * done / 1000, total);
            }
        })?;
        if !outcome.success {
            return Err(match complaint("apt-get install", &outcome.stderr, &self.debs) {
                BuildError::Tool { output, .. } => BuildError::Download(output),
                other => other,
            });
        }
        match missing.iter().find(|package| !self.is_intact(package)) {
            None => Ok(()),
            Some(package) => Err(BuildError::Download(format!(
                "{} does not match the hash in the signed index",
                package.file
            ))),
        }
    }

    /// Writes a package state in which all that `plan` leaves out counts as
    /// installed, so that apt asks for the rest only.
    fn status_with(&self, plan: &Plan) -> Result<PathBuf, BuildError> {
        let file = self.dir.join("status.download");
        let mut text = String::new();
        if !plan.left_out.is_empty() {
            let mut show = command("apt-cache");
            show.env("APT_CONFIG", self.settings_file(&plan.architecture)).arg("show");
            show.args(plan.left_out.iter().map(|p| format!("{}={}", p.name, p.version)));
            for line in run(&mut show, &self.dir)?.lines() {
                text.push_str(line);
                text.push('\n');
                if line.starts_with("Package: ") {
                    text.push_str("Status: install ok installed\n");
                }
            }
        }
        fs::write(&file, text).at(&file)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_line_gives_the_package() {
        let line = "'http://m.example/pool/busybox-static_1%3a1.37.0-6_riscv64.deb' \
                    busybox-static_1%3a1.37.0-6_riscv64.deb 953700 SHA256:abcd";
        let package = plan_line(line).unwrap();
        assert_eq!(package.name, "busybox-static");
        assert_eq!(package.version, "1:1.37.0-6");
        assert_eq!(package.architecture, "riscv64");
        assert_eq!((package.size, package.sha256.as_str()), (953_700, "abcd"));
    }

    #[test]
    fn a_weak_hash_or_other_text_is_no_plan_line() {
        assert_eq!(plan_line("Reading package lists..."), None);
        assert_eq!(plan_line("'http://m/a_1_all.deb' a_1_all.deb 5 MD5Sum:00"), None);
        assert_eq!(plan_line("'http://m/x' ../a_1_all.deb 5 SHA256:00"), None);
    }

    #[test]
    fn status_lines_tell_thousandths() {
        assert_eq!(status_line("dlstatus:3:50.9009:Retrieving file 3 of 4"), Some(509));
        assert_eq!(status_line("dlstatus:1:0.0000:Retrieving file 1 of 1"), Some(0));
        assert_eq!(status_line("Get:1 http://m.example trixie InRelease"), None);
        assert_eq!(status_line("dlstatus:1:NaNny:x"), None);
    }

    #[test]
    fn proxies_pass_and_hooks_and_trust_do_not() {
        let dump = "Acquire::http::Proxy \"http://p.example:3128\";\n\
                    Acquire::AllowInsecureRepositories \"1\";\n\
                    APT::Update::Post-Invoke:: \"rm -rf x\";\n";
        assert_eq!(transport_settings(dump), "Acquire::http::Proxy \"http://p.example:3128\";\n");
    }
}
