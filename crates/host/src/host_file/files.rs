//! The statement of the users' files:
//!
//! ```toml
//! [files]
//! directory = "/srv/berth"      # of the spaces; default: in the state directory
//! quota = "1G"                  # bytes in each space; default
//! most = 100000                 # files in each space; default
//! ```
//!
//! Machines of a `[[pool]]` with `files = true` have them at `/files`.

use std::path::PathBuf;

use file_manager::Quota;
use serde::Deserialize;
use toml::Spanned;

use super::HostFileError;
use super::place::At;
use super::raw::RawSize;

/// Where users' files are, and how much each space holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilesSpec {
    /// The directory of the spaces; none: in the state directory.
    pub directory: Option<PathBuf>,
    /// How much a space may hold that has no quota of its own.
    pub quota: Quota,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFiles {
    directory: Option<PathBuf>,
    quota: Option<Spanned<RawSize>>,
    most: Option<u64>,
}

pub(super) fn files(at: &At<'_>, raw: RawFiles) -> Result<FilesSpec, HostFileError> {
    let mut quota = Quota::default();
    if let Some(bytes) = &raw.quota {
        quota.bytes = at.size("quota", bytes)?;
    }
    quota.files = raw.most.unwrap_or(quota.files);
    Ok(FilesSpec { directory: raw.directory, quota })
}
