//! The host file as written, before anything is decided.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use main_storage::Size;
use serde::Deserialize;
use toml::Spanned;

use super::database::RawDatabase;
use super::files::RawFiles;
use super::pool::RawPool;
use super::{Engine, HostFileError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub(super) main_storage: RawMainStorage,
    #[serde(default)]
    pub(super) host: RawHost,
    #[serde(default)]
    pub(super) partition: Vec<Spanned<RawPartition>>,
    #[serde(default)]
    pub(super) pool: Vec<Spanned<RawPool>>,
    #[serde(default)]
    pub(super) gateway: RawGateway,
    #[serde(default)]
    pub(super) files: RawFiles,
    pub(super) database: Option<RawDatabase>,
    #[serde(default)]
    pub(super) api: super::api::RawApi,
    #[serde(default)]
    pub(super) telemetry: super::telemetry::RawTelemetry,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMainStorage {
    pub(super) size: Spanned<RawSize>,
    pub(super) backing: Option<Spanned<RawBacking>>,
    pub(super) path: Option<Spanned<std::path::PathBuf>>,
    pub(super) numa_node: Option<Spanned<i64>>,
    pub(super) reserve: Option<Spanned<bool>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RawBacking {
    #[serde(rename = "memfd")]
    Memfd,
    #[serde(rename = "hugetlb-2M")]
    Huge2M,
    #[serde(rename = "hugetlb-1G")]
    Huge1G,
    #[serde(rename = "file")]
    File,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHost {
    pub(super) device_wait: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGateway {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) certificate: Option<Spanned<std::path::PathBuf>>,
    pub(super) key: Option<Spanned<std::path::PathBuf>>,
    pub(super) socket_mode: Option<Spanned<String>>,
    pub(super) users: Option<std::path::PathBuf>,
    pub(super) jwks: Option<std::path::PathBuf>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPartition {
    pub(super) name: Spanned<String>,
    pub(super) size: Spanned<RawSize>,
    pub(super) origin: Option<Spanned<RawSize>>,
    pub(super) image: Spanned<String>,
    pub(super) vcpus: Option<Spanned<i64>>,
    pub(super) host_cpus: Option<Spanned<Vec<i64>>>,
    pub(super) cpu_sharing: Option<Spanned<RawSharing>>,
    pub(super) disk: Option<Spanned<RawSize>>,
    #[serde(default = "yes")]
    pub(super) autostart: bool,
    #[serde(default)]
    pub(super) engine: Engine,
    #[serde(default)]
    pub(super) io_keys: BTreeMap<String, Spanned<i64>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawSharing {
    Exclusive,
    TimeShared,
}

/// A size as text or as a number of bytes.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a size: \"128M\", \"1G\" or a number of bytes")]
pub(super) enum RawSize {
    Bytes(i64),
    Text(String),
}

fn yes() -> bool {
    true
}

pub(super) fn parse(text: &str) -> Result<RawFile, HostFileError> {
    toml::from_str(text)
        .map_err(|error| HostFileError::Syntax { message: error.to_string().trim_end().to_owned() })
}

/// Line of the byte at `span`'s start, from 1.
pub(super) fn line(text: &str, span: &Range<usize>) -> usize {
    let before = &text.as_bytes()[..span.start.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

impl RawSize {
    pub(super) fn bytes(&self) -> Result<u64, String> {
        match self {
            Self::Bytes(bytes) => u64::try_from(*bytes)
                .map_err(|_| format!("{bytes} is not a size; write a positive number of bytes")),
            Self::Text(text) => {
                text.parse::<Size>().map(|size| size.0).map_err(|error| error.to_string())
            }
        }
    }
}

/// `10s`, `500ms`, `2m`; at most an hour.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1u64), ("s", 1000), ("m", 60_000)];
    let number = units.iter().find_map(|(unit, millis)| {
        let digits = text.strip_suffix(unit)?;
        let legal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        legal.then(|| digits.parse::<u64>().ok()?.checked_mul(*millis)).flatten()
    });
    match number {
        Some(millis @ 0..=3_600_000) => Ok(Duration::from_millis(millis)),
        _ => Err(format!(
            "{text:?} is not a time to wait; write a whole number with ms, s or m, up to 60m, e.g. \"10s\""
        )),
    }
}
