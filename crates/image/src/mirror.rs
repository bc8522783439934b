//! Which mirror the host's own apt uses for the Debian archive.

use std::path::Path;

use crate::error::BuildError;
use crate::process::{command, run};

const FORMAT: &str = "$(ORIGIN)\t$(LABEL)\t$(REPO_URI)";

/// The mirror set in `BERTH_MIRROR`, else the one of the host's apt.
pub(crate) fn find() -> Result<String, BuildError> {
    if let Some(mirror) = std::env::var("BERTH_MIRROR").ok().filter(|text| !text.is_empty()) {
        return Ok(mirror);
    }
    let targets =
        run(command("apt-get").args(["indextargets", "--format", FORMAT]), Path::new("/"))?;
    if let Some(mirror) = from_targets(&targets) {
        return Ok(mirror);
    }
    // Before the host's first `apt-get update` there are no targets; the
    // addresses it would fetch are known all the same.
    let addresses = run(command("apt-get").args(["update", "--print-uris"]), Path::new("/"))?;
    from_addresses(&addresses).ok_or(BuildError::NoMirror)
}

/// The Debian archive among the lines of `apt-get indextargets`.
fn from_targets(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split('\t');
        let (origin, label, uri) = (fields.next()?, fields.next()?, fields.next()?);
        (origin == "Debian" && label == "Debian").then(|| uri.to_owned())
    })
}

/// The Debian archive among the lines of `apt-get update --print-uris`: the
/// one that lies in a directory `debian`, as the archive's mirrors keep it.
fn from_addresses(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let address = line.strip_prefix('\'')?.split('\'').next()?;
        let base = address.split_once("/dists/")?.0;
        (base.rsplit('/').next() == Some("debian")).then(|| base.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_told_from_security_and_strangers() {
        let text = "Elsewhere\tDebian\thttp://a.example/debian/\n\
                    Debian\tDebian-Security\thttp://b.example/debian-security/\n\
                    Debian\tDebian\thttp://c.example/debian/\n";
        assert_eq!(from_targets(text).as_deref(), Some("http://c.example/debian/"));
        assert_eq!(from_targets("$(ORIGIN)\t$(LABEL)\thttp://a.example/\n"), None);
    }

    #[test]
    fn without_lists_the_address_tells() {
        let text = "'http://a.example/node/dists/x/InRelease' a 0 \n\
                    'http://b.example/debian-security/dists/trixie-security/InRelease' b 0 \n\
                    'http://c.example/debian/dists/trixie/InRelease' c 0 \n";
        assert_eq!(from_addresses(text).as_deref(), Some("http://c.example/debian"));
        assert_eq!(from_addresses(""), None);
    }
}
