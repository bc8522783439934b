//! Commands that ask the host and print its answer.

use std::io::{IsTerminal, Write};

use main_storage::Size;
use operator_api::model::{Command, HostState, MovePlan, NewPartition, Outcome};
use operator_client::{Client, ClientError, Heard};
use serde::Serialize;

use crate::args::{CreateArgs, Global, MoveArgs, NameArg, StopArgs};
use crate::ended::Ended;
use crate::reach::{carry_out, client, note};
use crate::table::{Style, picture, table};
use crate::{Failure, print, print_json};

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
pub(crate) fn status_json(status: &HostState) -> serde_json::Value {
    let rows = status.partitions.iter().map(|partition| Row {
        name: &partition.name,
        origin: partition.origin,
        size: partition.size,
        gap: partition.gap,
        state: partition.state.as_str(),
        vcpus: partition.vcpus,
        engine: &partition.engine,
    });
    let partitions: Vec<_> = rows.collect();
    serde_json::json!({ "main_storage": status.main_storage, "partitions": partitions })
}

pub(crate) fn status(global: &Global) -> Result<(), Failure> {
    let status = client(global)?.state()?.host;
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
    command: &Command,
    name: &str,
    result: &str,
) -> Result<(), Failure> {
    carry_out(global, command)?;
    if global.json {
        print_json(&serde_json::json!({ "result": result, "name": name }));
    } else {
        println!("{name} is {result}");
    }
    Ok(())
}

pub(crate) fn create(global: &Global, args: &CreateArgs) -> Result<(), Failure> {
    // Here, so that what it takes long for is seen; another host has its own.
    let here = global.remote.host.is_none();
    if here && image::Recipe::built_in().any(|known| known == args.image) {
        crate::up::build(&args.image)?;
    }
    let CreateArgs { name, size, image, vcpus, .. } = args;
    let partition = NewPartition {
        name: name.clone(),
        size: size.0,
        origin: args.origin.map(|origin| origin.0),
        image: image.clone(),
        vcpus: *vcpus,
        disk: args.disk.map(|disk| disk.0),
        start: args.start,
    };
    let Outcome::Created { origin } = carry_out(global, &Command::Create { partition })? else {
        return unexpected();
    };
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
    done(global, &Command::Delete { name: args.name.clone() }, &args.name, "deleted")
}

pub(crate) fn start(global: &Global, args: &NameArg) -> Result<(), Failure> {
    done(global, &Command::Start { name: args.name.clone() }, &args.name, "started")
}

pub(crate) fn stop(global: &Global, args: &StopArgs) -> Result<(), Failure> {
    let command = Command::Stop { name: args.name.clone(), now: args.now };
    done(global, &command, &args.name, "stopped")
}

pub(crate) fn restart(global: &Global, args: &StopArgs) -> Result<(), Failure> {
    let command = Command::Restart { name: args.name.clone(), now: args.now };
    done(global, &command, &args.name, "restarted")
}

/// Has a command carried out and shows how far copying is; `hear` gets the rest.
pub(crate) fn with_progress(
    global: &Global,
    client: &mut Client,
    command: &Command,
    mut hear: impl FnMut(Heard<'_>),
) -> Result<Outcome, ClientError> {
    let bar = !global.json && std::io::stderr().is_terminal();
    let clear = || {
        if bar {
            // Takes back the line of the progress, if there was one.
            eprint!("\r\x1b[K");
            let _ = std::io::stderr().flush();
        }
    };
    let outcome = client.carry_out(command, |heard| match heard {
        Heard::Copying { done, total } if bar => {
            let percent = done.saturating_mul(100) / total.max(1);
            eprint!("\rcopying {percent:3} %");
        }
        Heard::Copying { .. } => {}
        other => {
            clear();
            hear(other);
        }
    });
    clear();
    outcome
}

pub(crate) fn relocate(global: &Global, args: &MoveArgs) -> Result<(), Failure> {
    let (mut client, to) = (client(global)?, args.to.0);
    let ended: Ended<MovePlan> = if args.dry_run {
        Ended::would(client.plan_move(&args.name, to))?
    } else {
        let command = Command::Move { name: args.name.clone(), to, mode: args.mode.into() };
        Ended::done(with_progress(global, &mut client, &command, note))?
    };
    if global.json {
        print_json(&ended.json("would_move", &[]));
    }
    let name = &args.name;
    let text = match &ended {
        Ended::Refused(problem) => {
            eprintln!("berth: \"{name}\" was not moved: {}", problem.detail);
            return Err(Failure::Said);
        }
        Ended::Done(Outcome::Moved {
            from,
            to,
            bytes,
            direction,
            pause_us,
            copy_bytes_per_second,
        }) => {
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
        Ended::Done(_) => return unexpected(),
        Ended::Would(MovePlan { from, to, bytes, direction }) => format!(
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
    use operator_api::model::{Partition, PartitionState};

    #[test]
    fn the_status_has_the_promised_fields_and_no_others() {
        let partition = Partition {
            name: "lpar1".into(),
            origin: 0,
            size: 1 << 20,
            gap: 2,
            state: PartitionState::Failed,
            vcpus: 3,
            engine: "soft".into(),
            image: "minimal".into(),
            reason: Some("not printed".into()),
            ready: false,
            pool: None,
            change: None,
        };
        let partitions = vec![partition];
        let status = HostState { main_storage: 9, partitions, ..HostState::default() };
        assert_eq!(
            status_json(&status),
            serde_json::json!({"main_storage": 9, "partitions": [{
                "name": "lpar1", "origin": 0, "size": 1 << 20, "gap": 2,
                "state": "failed", "vcpus": 3, "engine": "soft",
            }]})
        );
    }
}
