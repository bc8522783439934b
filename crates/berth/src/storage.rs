//! Commands that rearrange main storage: exchange, expand, shrink, compact.

use std::net::Shutdown;

use host::client::Client;
use host::control::{
    CompactOutcome, ExchangeOutcome, NewSize, Plan, Relocated, Reply, Request, ResizeOutcome,
};
use main_storage::Size;
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use crate::args::{CompactArgs, ExchangeArgs, ExpandArgs, Global, ShrinkArgs};
use crate::commands::{note, unexpected, with_progress};
use crate::{Failure, print, print_json, state_dir};

pub(crate) fn exchange(global: &Global, args: &ExchangeArgs) -> Result<(), Failure> {
    let names = [args.a.clone(), args.b.clone()];
    let request = Request::Exchange { names, dry_run: args.dry_run };
    let mut client = Client::request(&state_dir(global)?, &request)?;
    let reply = with_progress(global, &mut client, note)?;
    let Reply::Exchange(outcome) = reply else { return unexpected() };
    if global.json {
        print_json(&outcome);
    }
    let text = match &outcome {
        ExchangeOutcome::Refused { reason, .. } => {
            let (a, b) = (&args.a, &args.b);
            return said(&format!("\"{a}\" and \"{b}\" were not exchanged: {reason}"));
        }
        ExchangeOutcome::WouldExchange { partitions } => {
            format!("{}nobody is in the way\n", lines(partitions, "would move"))
        }
        ExchangeOutcome::Exchanged { partitions, bytes, pause_us, copy_bytes_per_second } => {
            format!(
                "{}{} MiB swapped, {:.1} GB/s, guests stopped for {:.1} ms\n",
                lines(partitions, "moved"),
                bytes >> 20,
                *copy_bytes_per_second as f64 / 1e9,
                milliseconds(*pause_us),
            )
        }
    };
    say(global, &text)
}

pub(crate) fn expand(global: &Global, args: &ExpandArgs) -> Result<(), Failure> {
    let size = match (args.to, args.by) {
        (Some(to), _) => NewSize::UpTo(to.0),
        (None, Some(by)) => NewSize::By(by.0),
        // clap asks for one of the two.
        (None, None) => NewSize::By(0),
    };
    let (name, make_room, dry_run) = (args.name.clone(), args.make_room, args.dry_run);
    resize(global, &Request::Resize { name, size, make_room, dry_run }, "expanded")
}

pub(crate) fn shrink(global: &Global, args: &ShrinkArgs) -> Result<(), Failure> {
    let (name, dry_run) = (args.name.clone(), args.dry_run);
    let size = NewSize::DownTo(args.to.0);
    resize(global, &Request::Resize { name, size, make_room: false, dry_run }, "shrunk")
}

fn resize(global: &Global, request: &Request, participle: &str) -> Result<(), Failure> {
    let mut client = Client::request(&state_dir(global)?, request)?;
    let _interrupt = Interrupt::watch(&client);
    let reply = with_progress(global, &mut client, note)?;
    let Reply::Resize(outcome) = reply else { return unexpected() };
    if global.json {
        print_json(&outcome);
    }
    let text = match &outcome {
        ResizeOutcome::Refused { reason, moved, .. } => {
            let moved = lines(moved, "was moved");
            return said(format!("not {participle}: {reason}\n{moved}").trim_end());
        }
        ResizeOutcome::WouldResize { name, from, to, moves } => format!(
            "{}{name} would be {participle} from {} to {}\n",
            lines(moves, "would first move"),
            Size(*from),
            Size(*to)
        ),
        ResizeOutcome::Resized { name, from, to, guest_bytes, kept, moved, pause_us } => {
            let mut text = lines(moved, "moved");
            text += &format!("{name} {participle} from {} to {}", Size(*from), Size(*to));
            if let Some(bytes) = guest_bytes {
                let pause = milliseconds(*pause_us);
                text += &format!("; its guest has {}, stopped for {pause:.1} ms", Size(*bytes));
            }
            if *kept > 0 {
                text += &format!("; it could not give back {} more", Size(*kept));
            }
            text + "\n"
        }
    };
    say(global, &text)
}

pub(crate) fn compact(global: &Global, args: &CompactArgs) -> Result<(), Failure> {
    let request = Request::Compact { free: args.free.map(|size| size.0), dry_run: args.dry_run };
    let mut client = Client::request(&state_dir(global)?, &request)?;
    let _interrupt = Interrupt::watch(&client);
    let reply = with_progress(global, &mut client, |reply| match reply {
        Reply::Plan(plan) if !global.json => print(&plan_text(plan)),
        Reply::Plan(_) => {}
        other => note(other),
    })?;
    let Reply::Compact(outcome) = reply else { return unexpected() };
    if global.json {
        print_json(&outcome);
    }
    let text = match &outcome {
        CompactOutcome::Refused { reason, .. } => {
            return said(&format!("not compacted: {reason}"));
        }
        CompactOutcome::Stopped { reason, moved, left } => {
            let done = moved.len();
            return said(&format!("{done} moves done, {left} left: {reason}"));
        }
        CompactOutcome::WouldCompact { plan } => plan_text(plan),
        CompactOutcome::Compacted { plan } => {
            format!("{} free at {}\n", Size(plan.free_size), Size(plan.free_origin))
        }
    };
    say(global, &text)
}

fn plan_text(plan: &Plan) -> String {
    if plan.moves.is_empty() {
        let (size, origin) = (Size(plan.free_size), Size(plan.free_origin));
        return format!("nothing to move: {size} are free at {origin}\n");
    }
    let least = if plan.least { ", the least there is" } else { "" };
    format!(
        "{}{} to copy at most{least}; then {} are free at {}\n",
        lines(&plan.moves, "moves"),
        Size(plan.bytes),
        Size(plan.free_size),
        Size(plan.free_origin),
    )
}

fn lines(moves: &[Relocated], verb: &str) -> String {
    let line = |one: &Relocated| {
        let (from, to) = (Size(one.from), Size(one.to));
        format!("{} ({}) {verb} from {from} to {to}\n", one.name, Size(one.size))
    };
    moves.iter().map(line).collect()
}

fn milliseconds(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64() * 1e3
}

fn say(global: &Global, text: &str) -> Result<(), Failure> {
    if !global.json {
        print(text);
    }
    Ok(())
}

fn said(what: &str) -> Result<(), Failure> {
    eprintln!("berth: {what}");
    Err(Failure::Said)
}

/// Tells the host at Ctrl-C that it should end with the move in hand; the
/// second one ends this program.
struct Interrupt(Option<signal_hook::iterator::Handle>);

impl Interrupt {
    fn watch(client: &Client) -> Self {
        let Ok((connection, mut signals)) =
            client.connection().and_then(|connection| Ok((connection, Signals::new([SIGINT])?)))
        else {
            // Then Ctrl-C ends this program, and the host notices that.
            return Self(None);
        };
        let handle = signals.handle();
        let thread = std::thread::Builder::new().name("interrupt".into()).spawn(move || {
            let mut told = false;
            for _ in signals.forever() {
                if told {
                    std::process::exit(128 + SIGINT);
                }
                told = true;
                eprintln!("\nending after the move in hand; Ctrl-C again ends only this program");
                let _ = connection.shutdown(Shutdown::Write);
            }
        });
        drop(thread);
        Self(Some(handle))
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.close();
        }
    }
}
