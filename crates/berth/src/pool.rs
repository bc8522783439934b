//! `berth pool`: what the pools are doing, and a hand on them.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use operator_api::model::{Command, MemberState, Pool, PoolMember};

use crate::args::{Global, PoolCommand};
use crate::commands::done;
use crate::reach::client;
use crate::{Failure, print, print_json};

pub(crate) fn pool(global: &Global, command: &PoolCommand) -> Result<(), Failure> {
    match command {
        PoolCommand::Status { name } => status(global, name.as_deref()),
        PoolCommand::Resume { name } => {
            done(global, &Command::PoolResume { name: name.clone() }, name, "resumed")
        }
        PoolCommand::Resize { name, min, max } => {
            let command = Command::PoolResize { name: name.clone(), min: *min, max: *max };
            done(global, &command, name, "resized")
        }
    }
}

fn status(global: &Global, name: Option<&str>) -> Result<(), Failure> {
    let mut pools = client(global)?.state()?.pools;
    if let Some(name) = name {
        pools.retain(|pool| pool.name == name);
        if pools.is_empty() {
            return Err(Failure::Other(format!("there is no pool \"{name}\"")));
        }
    }
    if global.json {
        let pools: Vec<_> = pools.iter().map(row).collect();
        print_json(&serde_json::json!({ "pools": pools }));
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for pool in &pools {
        print(&table(pool, now));
    }
    Ok(())
}

/// A state as it is written for people, and always was for programs.
fn word(state: MemberState) -> &'static str {
    match state {
        MemberState::InUse => "in use",
        state => state.as_str(),
    }
}

/// A pool as `berth pool status --json` prints it: the promised fields and no more.
fn row(pool: &Pool) -> serde_json::Value {
    let Pool { name, min, max, limit: _, waiting, alarm, members } = pool;
    let member = |member: &PoolMember| {
        let put_back = member.put_back_micros.map(|micros| {
            let (bytes, times) = (member.put_back_bytes, member.put_back_times);
            let first = member.first_output_micros;
            serde_json::json!({
                "bytes": bytes, "micros": micros, "times": times, "first_output_us": first,
            })
        });
        serde_json::json!({
            "name": member.name, "state": word(member.state), "visited": member.visited,
            "tpn": member.tpn, "user": member.user, "conversation": member.conversation,
            "since": member.since / 1000, "put_back": put_back,
        })
    };
    let members: Vec<_> = members.iter().map(member).collect();
    serde_json::json!({
        "name": name, "min": min, "max": max, "waiting": waiting, "alarm": alarm,
        "members": members,
    })
}

/// A pool's line, and the table of its machines.
pub(crate) fn table(pool: &Pool, now: u64) -> String {
    let free = pool.members.iter().filter(|member| member.state == MemberState::Free).count();
    let Pool { name, min, max, waiting, .. } = pool;
    let mut out = format!("pool {name}: {min} to {max} machines, {free} free, {waiting} waiting\n");
    if let Some(alarm) = &pool.alarm {
        let _ = writeln!(out, "  builds no more: {alarm}; `berth pool resume {name}` tries again");
    }
    let width = pool.members.iter().map(|member| member.name.len()).max().unwrap_or(0).max(7);
    let _ = writeln!(
        out,
        "{:width$}  {:<8}  {:<12}  {:<16}  {:<22}  {:>8}",
        "MACHINE", "STATE", "PROGRAM", "USER", "CONVERSATION", "SINCE"
    );
    for member in &pool.members {
        let PoolMember { name, tpn, user, conversation, .. } = member;
        // By its administrator, who may still be there.
        let visited = member.visited && member.state == MemberState::Free;
        let state = if visited { "visited" } else { word(member.state) };
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let since = Duration::from_secs(now.saturating_sub(member.since / 1000));
        let _ = writeln!(
            out,
            "{name:width$}  {state:<8}  {:<12}  {:<16}  {:<22}  {:>8}",
            or_none(tpn),
            or_none(user),
            or_none(conversation),
            ago(since)
        );
    }
    out
}

/// A time in its largest unit.
pub(crate) fn ago(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_who_wears_which_machine() {
        let member = |name: &str, user: Option<&str>| PoolMember {
            name: name.to_owned(),
            state: if user.is_some() { MemberState::InUse } else { MemberState::Free },
            visited: false,
            tpn: user.map(|_| "mail".to_owned()),
            user: user.map(str::to_owned),
            conversation: user.map(|_| "c-1".to_owned()),
            since: 1_000_000,
            put_back_times: 0,
            put_back_micros: None,
            put_back_bytes: None,
            first_output_micros: None,
        };
        let members = vec![member("serve-00", Some("alice")), member("serve-01", None)];
        let name = "serve".to_owned();
        let pool = Pool { name, min: 2, max: 2, limit: 2, waiting: 3, alarm: None, members };
        let text = table(&pool, 1300);
        assert!(text.starts_with("pool serve: 2 to 2 machines, 1 free, 3 waiting\n"), "{text}");
        let line = text.lines().nth(2).unwrap_or_default();
        for word in ["serve-00", "in use", "mail", "alice", "c-1", "5 min"] {
            assert!(line.contains(word), "{word} in {line}");
        }
    }
}
