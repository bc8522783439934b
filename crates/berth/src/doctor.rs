//! `berth doctor`: looks at what a host needs, and says what is wrong.

use std::os::unix::net::UnixStream;
use std::time::{SystemTime, UNIX_EPOCH};

use host::StateDir;
use identity::{ApiTokens, Users};
use main_storage::Size;
use operator_api::model::{HostState, MemberState, PartitionState, Pool, State};
use operator_client::{Client, ClientError, Place};
use rustix::process::{Resource, getrlimit};

use crate::args::Global;
use crate::user::other;
use crate::{Failure, print, print_json, state_dir};

/// Open files below which a host with many guests and clients runs short.
const FILES: u64 = 4096;
/// Memory that should be left beside the guests.
const SPARE: u64 = 256 << 20;

/// What was found out about one thing.
struct Finding {
    about: &'static str,
    /// What it is like, or what is wrong and what to do.
    result: Result<String, String>,
}

pub(crate) fn doctor(global: &Global) -> Result<(), Failure> {
    let dir = state_dir(global)?;
    let findings = examine(&dir);
    let well = findings.iter().all(|finding| finding.result.is_ok());
    if global.json {
        let each = findings.iter().map(|Finding { about, result }| {
            let said = result.as_ref().unwrap_or_else(|wrong| wrong);
            serde_json::json!({ "about": about, "well": result.is_ok(), "said": said })
        });
        let each: Vec<_> = each.collect();
        print_json(&serde_json::json!({ "well": well, "findings": each }));
    } else {
        for Finding { about, result } in &findings {
            let (mark, said) = match result {
                Ok(said) => ("ok", said),
                Err(wrong) => ("!!", wrong),
            };
            print(&format!("{mark}  {about:<14}  {said}\n"));
        }
    }
    if well { Ok(()) } else { Err(Failure::Said) }
}

fn examine(dir: &StateDir) -> Vec<Finding> {
    let finding = |about, result| Finding { about, result };
    let mut all = vec![
        finding("state", state(dir)),
        finding("images", images()),
        finding("open files", files()),
    ];
    match ask(dir) {
        Ok(State { host, pools, .. }) => {
            all.push(finding("host", Ok(format!("it answers; {}", partitions(&host)))));
            all.extend(host.partitions.iter().filter_map(|one| {
                let reason = one.reason.as_deref().unwrap_or("no reason is known");
                let what = format!("{}: {reason}; `berth start {0}` begins anew", one.name);
                (one.state == PartitionState::Failed).then(|| finding("partition", Err(what)))
            }));
            all.push(finding("memory", memory()));
            all.extend(pools.iter().map(|one| finding("pool", pool(one))));
        }
        Err(ClientError::NoHost { .. }) => all.push(finding("host", leftovers(dir))),
        Err(error) => all.push(finding("host", Err(error.to_string()))),
    }
    all.push(finding("users", users(dir)));
    all.push(finding("tokens", tokens(dir)));
    all
}

fn ask(dir: &StateDir) -> Result<State, ClientError> {
    Client::new(&Place::Local(dir.api_socket()))?.state()
}

fn state(dir: &StateDir) -> Result<String, String> {
    let path = dir.path().display().to_string();
    dir.check().map_err(|error| error.to_string())?;
    match std::fs::metadata(dir.path()) {
        Ok(found) => {
            use std::os::unix::fs::PermissionsExt;
            let mode = found.permissions().mode();
            if mode & 0o077 == 0 {
                Ok(path)
            } else {
                Err(format!("{path} can be used by others than its owner; run chmod 700 on it"))
            }
        }
        Err(_) => Ok(format!("{path}, which the first `berth up` makes")),
    }
}

fn images() -> Result<String, String> {
    let found = crate::up::store().and_then(|store| Ok(store.list()?));
    let found = found.map_err(|error| host::in_full(&error))?;
    if found.is_empty() {
        return Ok("none yet; `berth up` builds those that it needs".to_owned());
    }
    let names: Vec<_> = found.iter().map(|image| image.name.as_str()).collect();
    Ok(names.join(", "))
}

fn files() -> Result<String, String> {
    // A host raises the soft limit by itself, up to the hard one.
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < FILES => Err(format!(
            "a process may have {most}; a host with many guests and clients wants {FILES}: raise \
             the limit (ulimit -Hn, or LimitNOFILE of its service)"
        )),
        Some(most) => Ok(format!("a process may have {most}")),
        None => Ok("a process may have as many as it likes".to_owned()),
    }
}

fn partitions(status: &HostState) -> String {
    let running = status.partitions.iter().filter(|one| one.state == PartitionState::Running);
    let (running, all) = (running.count(), status.partitions.len());
    format!("{running} of {all} partitions run in {}", Size(status.main_storage))
}

fn memory() -> Result<String, String> {
    let text = std::fs::read_to_string("/proc/meminfo").map_err(|error| error.to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let available = kib.ok_or("the system does not say how much is available")? << 10;
    let said = format!("{} MiB are available", available >> 20);
    if available < SPARE {
        return Err(format!("only {said}; stop a partition, or free memory on the host"));
    }
    Ok(said)
}

fn leftovers(dir: &StateDir) -> Result<String, String> {
    let workers = dir.worker_sockets();
    let alive = workers.iter().filter(|name| UnixStream::connect(dir.worker_socket(name)).is_ok());
    let alive: Vec<_> = alive.map(ToString::to_string).collect();
    if alive.is_empty() {
        return Ok("none runs; `berth up` starts one".to_owned());
    }
    let guests = alive.join(", ");
    Err(format!("none runs, but its guests do: {guests}; `berth up` takes them over"))
}

fn pool(pool: &Pool) -> Result<String, String> {
    let name = &pool.name;
    if let Some(alarm) = &pool.alarm {
        let again = format!("`berth pool resume {name}` tries again");
        return Err(format!("{name} builds no more machines: {alarm}; {again}"));
    }
    let count = |state: MemberState| pool.members.iter().filter(|one| one.state == state).count();
    let (all, free, broken) =
        (pool.members.len(), count(MemberState::Free), count(MemberState::Broken));
    let said = format!("{name}: {free} of {all} machines free, {} claims wait", pool.waiting);
    if broken > 0 { Err(format!("{said}; {broken} are broken and are rebuilt")) } else { Ok(said) }
}

fn users(dir: &StateDir) -> Result<String, String> {
    if !dir.users().exists() {
        return Ok("none with a password".to_owned());
    }
    Users::load(&dir.users())
        .map(|_| "the users file can be read".to_owned())
        .map_err(|error| other(error).to_string())
}

fn tokens(dir: &StateDir) -> Result<String, String> {
    let tokens = ApiTokens::load(&dir.api_tokens()).map_err(|error| other(error).to_string())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let good = tokens.all().iter().filter(|token| token.expires > now).count();
    Ok(format!("{good} are good, {} have expired", tokens.all().len() - good))
}
