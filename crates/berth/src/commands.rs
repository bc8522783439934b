//! Commands that ask the host and print its answer.

use std::io::{IsTerminal, Write};

use host::client::Client;
use host::control::{HostStatus, MoveOutcome, NewPartition, Reply, Request};
use main_storage::Size;
use serde::Serialize;

use crate::args::{CreateArgs, Global, MoveArgs, NameArg, StopArgs};
use crate::table::{Style, picture, table};
use crate::{Failure, print, print_json, state_dir};

/// Sends `request` and returns the answer; notes go to standard error.
pub(crate) fn ask(global: &Global, request: &Request) -> Result<Reply, Failure> {
    let mut client = Client::request(&state_dir(global)?, request)?;
    Ok(client.answer(note)?)
}

/// Shows a note of the host.
pub(crate) fn note(reply: &Reply) {
    if let Reply::Note { text } = reply {
        eprintln!("{text}");
    }
}

/// What a program gets of a partition: the promised fields and no more.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    origin: u64,
    size: u64,
    gap: u64,
    state: &'a str,
    vcpus: u8,
    engine: &'a str,
}

/// As `berth status --json` prints it.
pub(crate) fn status_json(status: &HostStatus) -> serde_json::Value {
    let rows = status.partitions.iter().map(|partition| Row {
        name: &partition.name,
        origin: partition.origin,
        size: partition.size,
        gap: partition.gap,
        state: partition.state.as_str(),
        vcpus: partition.vcpus,
        engine: partition.engine.as_str(),
    });
    let partitions: Vec<_> = rows.collect();
    serde_json::json!({ "main_storage": status.main_storage, "partitions": partitions })
}

pub(crate) fn status(global: &Global) -> Result<(), Failure> {
    let Reply::Status(status) = ask(global, &Request::Status)? else { return unexpected() };
    if global.json {
        print_json(&status_json(&status));
    } else {
        print(&table(&status));
        print("\n");
        print(&picture(&status, Style::of_stdout()));
    }
    Ok(())
}

pub(crate) fn unexpected<T>() -> Result<T, Failure> {
    let what = "the host answered something else; is it of another version? restart it";
    Err(Failure::Other(what.to_owned()))
}

/// A command whose answer is that it was done.
pub(crate) fn done(
    global: &Global,
    request: &Request,
    name: &str,
    result: &str,
) -> Result<(), Failure> {
    let Reply::Done = ask(global, request)? else { return unexpected() };
    if global.json {
        print_json(&serde_json::json!({ "result": result, "name": name }));
    } else {
        println!("{name} is {result}");
    }
    Ok(())
}

pub(crate) fn create(global: &Global, args: &CreateArgs) -> Result<(), Failure> {
    // Here, so that what it takes long for is seen.
    if image::Recipe::built_in().any(|known| known == args.image) {
        crate::up::build(&args.image)?;
    }
    let CreateArgs { name, size, image, vcpus, .. } = args;
    let request = Request::Create(NewPartition {
        name: name.clone(),
        size: size.0,
        origin: args.origin.map(|origin| origin.0),
        image: image.clone(),
        vcpus: *vcpus,
        disk: args.disk.map(|disk| disk.0),
    });
    let Reply::Created { origin } = ask(global, &request)? else { return unexpected() };
    if args.start {
        let Reply::Done = ask(global, &Request::Start { name: name.clone() })? else {
            return unexpected();
        };
    }
    if global.json {
        print_json(&serde_json::json!({
            "result": "created", "name": name, "origin": origin, "size": size.0, "started": args.start,
        }));
    } else {
        let started = if args.start { ", and started" } else { "" };
        println!("{name} is created: {size} from {}{started}", Size(origin));
    }
    Ok(())
}

pub(crate) fn delete(global: &Global, args: &NameArg) -> Result<(), Failure> {
    done(global, &Request::Delete { name: args.name.clone() }, &args.name, "deleted")
}

pub(crate) fn start(global: &Global, args: &NameArg) -> Result<(), Failure> {
    done(global, &Request::Start { name: args.name.clone() }, &args.name, "started")
}

pub(crate) fn stop(global: &Global, args: &StopArgs) -> Result<(), Failure> {
    let request = Request::Stop { name: args.name.clone(), now: args.now };
    done(global, &request, &args.name, "stopped")
}

pub(crate) fn restart(global: &Global, args: &StopArgs) -> Result<(), Failure> {
    let request = Request::Restart { name: args.name.clone(), now: args.now };
    done(global, &request, &args.name, "restarted")
}

/// Waits for the answer and shows how far copying is; `hear` gets the rest.
pub(crate) fn with_progress(
    global: &Global,
    client: &mut Client,
    mut hear: impl FnMut(&Reply),
) -> Result<Reply, Failure> {
    let bar = !global.json && std::io::stderr().is_terminal();
    let clear = || {
        if bar {
            // Takes back the line of the progress, if there was one.
            eprint!("\r\x1b[K");
            let _ = std::io::stderr().flush();
        }
    };
    let reply = client.answer(|reply| match reply {
        Reply::Copying { done, total } if bar => {
            let percent = done.saturating_mul(100) / (*total).max(1);
            eprint!("\rcopying {percent:3} %");
        }
        Reply::Copying { .. } => {}
        other => {
            clear();
            hear(other);
        }
    });
    clear();
    Ok(reply?)
}

pub(crate) fn relocate(global: &Global, args: &MoveArgs) -> Result<(), Failure> {
    let (name, dry_run) = (args.name.clone(), args.dry_run);
    let request = Request::Move { name, to: args.to.0, mode: args.mode.into(), dry_run };
    let mut client = Client::request(&state_dir(global)?, &request)?;
    let reply = with_progress(global, &mut client, note);
    let Reply::Move(outcome) = reply? else { return unexpected() };
    if global.json {
        print_json(&outcome);
    }
    let name = &args.name;
    let text = match &outcome {
        MoveOutcome::Refused { reason, .. } => {
            eprintln!("berth: \"{name}\" was not moved: {reason}");
            return Err(Failure::Said);
        }
        MoveOutcome::Moved { from, to, bytes, direction, pause_us, copy_bytes_per_second } => {
            let pause = std::time::Duration::from_micros(*pause_us).as_secs_f64() * 1e3;
            let speed = *copy_bytes_per_second as f64 / 1e9;
            format!(
                "{name} moved from {} to {}: {} MiB copied {direction}, {speed:.1} GB/s, guest \
                 stopped for {pause:.1} ms\n",
                Size(*from),
                Size(*to),
                bytes >> 20,
            )
        }
        MoveOutcome::WouldMove { from, to, bytes, direction } => format!(
            "{name} would move from {} to {}: at most {} to copy, {direction}; nobody is in the way\n",
            Size(*from),
            Size(*to),
            Size(*bytes),
        ),
    };
    if !global.json {
        print(&text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::control::{PartitionState, PartitionStatus};
    use host::host_file::Engine;

    #[test]
    fn the_status_has_the_promised_fields_and_no_others() {
        let partition = PartitionStatus {
            name: "lpar1".into(),
            origin: 0,
            size: 1 << 20,
            gap: 2,
            state: PartitionState::Failed,
            vcpus: 3,
            engine: Engine::Soft,
            reason: Some("not printed".into()),
            ready: false,
            pid: Some(1),
        };
        let status = HostStatus { main_storage: 9, partitions: vec![partition] };
        assert_eq!(
            status_json(&status),
            serde_json::json!({"main_storage": 9, "partitions": [{
                "name": "lpar1", "origin": 0, "size": 1 << 20, "gap": 2,
                "state": "failed", "vcpus": 3, "engine": "soft",
            }]})
        );
    }
}
