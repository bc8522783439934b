//! The pool statement: many equal machines for one set of programs.
//!
//! ```toml
//! [[pool]]
//! name = "serve"
//! count = 15                    # machines serve-00 to serve-14; or min and max
//! size = "128M"
//! image = "minimal"
//! vcpus = 1                     # default
//! disk = "64M"                  # data disk at /data, as it was captured in each
//!                               # conversation; default: none
//! users = ["alice", "bob"]      # who may allocate its programs
//! groups = ["staff"]            # and members of these groups
//! anybody = false               # default; true: whoever has an id
//! quota = 4                     # machines one user may have; default: all
//! wait = "30s"                  # longest wait for a machine; default
//! queue = 64                    # claims that may wait; default
//! conversation = "60m"          # longest conversation; default
//! files = false                 # default; true: the user's files are at /files
//! database = false              # default; true: the user's database can be reached
//!
//! [[pool.file]]                 # put into the machines before they are captured
//! source = "programs/mail"      # beside the host file
//! path = "/opt/mail"
//!
//! [[pool.program]]
//! tpn = "mail"
//! service = ["/opt/mail"]       # initialised beforehand, takes conversations on
//!                               # its socket; or
//! run = ["/opt/stats"]          # started for each conversation
//! initialise = ["/opt/warm"]    # with run: must exit with 0 before the capture
//! users = ["alice"]             # may allocate this one, beside the pool's
//! ```

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use main_storage::PartitionName;
use serde::Deserialize;
use service_pool::{Grant, Group, MemberId, PoolConfig, PoolName, Tpn, UserId, WaitingLimits, Who};
use toml::Spanned;

use super::place::{At, is_image_name};
use super::raw::{self, RawSize};
use super::{HostFileError, MAX_VCPUS};

/// Longest wait for a machine unless the file says otherwise.
const WAIT: Duration = Duration::from_secs(30);
/// Claims that may wait unless the file says otherwise.
const QUEUE: usize = 64;
/// How long a conversation may last unless the file says otherwise.
const CONVERSATION: Duration = Duration::from_secs(3600);
/// How long a machine over the minimum stays free.
const IDLE: Duration = Duration::from_secs(300);
/// Bytes of a file put into a machine.
pub const MAX_POOL_FILE: u64 = 8 << 20;

/// A pool as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// What the conversation manager is told.
    pub config: PoolConfig,
    /// Its programs.
    pub programs: Vec<ProgramSpec>,
    /// Files that are put into its machines.
    pub files: Vec<PoolFile>,
    /// Whether its machines have their user's files.
    pub user_files: bool,
    /// Whether its machines have their user's database.
    pub user_database: bool,
    /// How long a conversation may last.
    pub conversation: Duration,
    /// Line in the host file where it begins.
    pub line: usize,
}

/// A transaction program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramSpec {
    /// Its name for users.
    pub tpn: Tpn,
    /// How it is run.
    pub kind: ProgramKind,
}

/// How a transaction program is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramKind {
    /// Started before the capture; takes conversations on its socket.
    Service(Vec<String>),
    /// Started for each conversation.
    Run {
        /// The program.
        run: Vec<String>,
        /// Must exit with 0 before the capture.
        initialise: Option<Vec<String>>,
    },
}

/// A file put into every machine of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolFile {
    /// On the host.
    pub source: PathBuf,
    /// In the machine.
    pub path: String,
}

impl PoolSpec {
    /// Its machines, by number.
    pub fn members(&self) -> impl Iterator<Item = MemberId> + '_ {
        let width = self.config.max.saturating_sub(1).to_string().len().max(2);
        let text = move |number| format!("{}-{number:0width$}", self.config.name);
        // Every one of a checked pool is a name.
        (0..self.config.max).filter_map(move |number| text(number).parse().ok())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPool {
    name: Spanned<String>,
    count: Option<Spanned<u16>>,
    min: Option<Spanned<u16>>,
    max: Option<Spanned<u16>>,
    pub(super) size: Spanned<RawSize>,
    pub(super) image: Spanned<String>,
    pub(super) vcpus: Option<Spanned<i64>>,
    pub(super) disk: Option<Spanned<RawSize>>,
    #[serde(default)]
    users: Vec<Spanned<String>>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
    #[serde(default)]
    anybody: bool,
    quota: Option<Spanned<u16>>,
    wait: Option<Spanned<String>>,
    queue: Option<Spanned<u16>>,
    conversation: Option<Spanned<String>>,
    #[serde(default)]
    program: Vec<Spanned<RawProgram>>,
    #[serde(default)]
    file: Vec<Spanned<RawFile>>,
    #[serde(default)]
    files: bool,
    #[serde(default)]
    database: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProgram {
    tpn: Spanned<String>,
    service: Option<Vec<String>>,
    run: Option<Vec<String>>,
    initialise: Option<Vec<String>>,
    #[serde(default)]
    users: Vec<Spanned<String>>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
    #[serde(default)]
    anybody: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    source: Spanned<PathBuf>,
    path: Spanned<String>,
}

/// A pool, and what its members have as partitions: image and vCPUs.
pub(super) fn pool(
    at: &At<'_>,
    raw: &RawPool,
    line: usize,
) -> Result<(PoolSpec, String, u8), HostFileError> {
    let name = PoolName::new(raw.name.get_ref()).map_err(|error| at.error(&raw.name, error))?;
    let about = |what: String| format!("pool \"{name}\": {what}");
    let (min, max) = bounds(at, raw, &about)?;
    let image = raw.image.get_ref().clone();
    if !is_image_name(&image) {
        let what = format!("{image:?} is not an image's name; `berth image list` shows them");
        return Err(at.error(&raw.image, about(what)));
    }
    let vcpus = match &raw.vcpus {
        None => 1,
        Some(vcpus) => u8::try_from(*vcpus.get_ref())
            .ok()
            .filter(|vcpus| (1..=MAX_VCPUS).contains(vcpus))
            .ok_or_else(|| {
                at.error(vcpus, about(format!("a machine has 1 to {MAX_VCPUS} vCPUs")))
            })?,
    };
    let mut grants = grants(at, (&raw.users, &raw.groups, raw.anybody), None)?;
    let mut programs = Vec::new();
    for raw in &raw.program {
        let program = program(at, raw, &about)?;
        let raw = raw.get_ref();
        let only = Some(BTreeSet::from([program.tpn.clone()]));
        grants.extend(self::grants(at, (&raw.users, &raw.groups, raw.anybody), only)?);
        if programs.iter().any(|other: &ProgramSpec| other.tpn == program.tpn) {
            let what = format!("it has two programs {}", program.tpn);
            return Err(at.error(&raw.tpn, about(what)));
        }
        programs.push(program);
    }
    let wait = |text: &Option<Spanned<String>>, default| match text {
        None => Ok(default),
        Some(text) => raw::duration(text.get_ref()).map_err(|error| at.error(text, about(error))),
    };
    let queue = raw.queue.as_ref().map_or(QUEUE, |queue| usize::from(*queue.get_ref()));
    let config = PoolConfig {
        name: name.clone(),
        min,
        max,
        tpns: programs.iter().map(|program| program.tpn.clone()).collect(),
        grants,
        per_user: raw.quota.as_ref().map_or(max.max(1), |quota| *quota.get_ref()),
        waiting: WaitingLimits { total: queue, per_user: queue, longest: wait(&raw.wait, WAIT)? },
        builds_at_once: 2,
        failures_until_stop: 3,
        idle: IDLE,
    };
    // Whatever else is wrong with it.
    service_pool::ConversationManager::new(0)
        .add_pool(Duration::ZERO, config.clone())
        .map_err(|error| at.error(&raw.name, error))?;
    let files = raw.file.iter().map(|file| self::file(at, file.get_ref(), &about));
    let files = files.collect::<Result<_, _>>()?;
    let conversation = wait(&raw.conversation, CONVERSATION)?;
    let (user_files, user_database) = (raw.files, raw.database);
    let pool = PoolSpec { config, programs, files, user_files, user_database, conversation, line };
    Ok((pool, image, vcpus))
}

fn bounds(
    at: &At<'_>,
    raw: &RawPool,
    about: &dyn Fn(String) -> String,
) -> Result<(u16, u16), HostFileError> {
    match (&raw.count, &raw.min, &raw.max) {
        (Some(count), None, None) => Ok((*count.get_ref(), *count.get_ref())),
        (None, Some(min), Some(max)) => Ok((*min.get_ref(), *max.get_ref())),
        _ => {
            let what = "say how many machines: count = 15, or min = 5 and max = 15".to_owned();
            Err(at.error(&raw.name, about(what)))
        }
    }
}

fn grants(
    at: &At<'_>,
    (users, groups, anybody): (&[Spanned<String>], &[Spanned<String>], bool),
    tpns: Option<BTreeSet<Tpn>>,
) -> Result<Vec<Grant>, HostFileError> {
    let mut all = Vec::new();
    let mut grant = |who| all.push(Grant { who, tpns: tpns.clone() });
    for user in users {
        grant(Who::User(UserId::new(user.get_ref()).map_err(|error| at.error(user, error))?));
    }
    for group in groups {
        grant(Who::Group(Group::new(group.get_ref()).map_err(|error| at.error(group, error))?));
    }
    if anybody {
        grant(Who::Anybody);
    }
    Ok(all)
}

fn program(
    at: &At<'_>,
    raw: &Spanned<RawProgram>,
    about: &dyn Fn(String) -> String,
) -> Result<ProgramSpec, HostFileError> {
    let raw = raw.get_ref();
    let tpn = Tpn::new(raw.tpn.get_ref()).map_err(|error| at.error(&raw.tpn, error))?;
    let wrong = |what: &str| at.error(&raw.tpn, about(format!("program {tpn}: {what}")));
    let named = |argv: &Vec<String>| argv.first().is_some_and(|program| !program.is_empty());
    let all = [&raw.service, &raw.run, &raw.initialise];
    if !all.into_iter().flatten().all(named) {
        return Err(wrong("a command is a list that begins with a program"));
    }
    let kind = match (&raw.service, &raw.run, &raw.initialise) {
        (Some(service), None, None) => ProgramKind::Service(service.clone()),
        (None, Some(run), initialise) => {
            ProgramKind::Run { run: run.clone(), initialise: initialise.clone() }
        }
        _ => {
            return Err(wrong(
                "say how it is run: service = [...], or run = [...] and maybe initialise = [...]",
            ));
        }
    };
    Ok(ProgramSpec { tpn, kind })
}

fn file(
    at: &At<'_>,
    raw: &RawFile,
    about: &dyn Fn(String) -> String,
) -> Result<PoolFile, HostFileError> {
    let path = raw.path.get_ref().clone();
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        let what = format!("{path:?} is not the path of a file in the machine, like \"/opt/mail\"");
        return Err(at.error(&raw.path, about(what)));
    }
    Ok(PoolFile { source: raw.source.get_ref().clone(), path })
}

/// The names of a pool's machines as partitions.
pub(super) fn member_names(
    at: &At<'_>,
    raw: &RawPool,
    spec: &PoolSpec,
) -> Result<Vec<PartitionName>, HostFileError> {
    let names = spec.members().map(|member| PartitionName::new(&member.to_string()));
    names.map(|name| name.map_err(|error| at.error(&raw.name, error))).collect()
}
