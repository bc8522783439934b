//! Commands that rearrange main storage: exchange, expand, shrink, compact.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use main_storage::Size;
use operator_api::NewSize;
use operator_api::model::{Command, CompactPlan, ExchangePlan, Outcome, Relocated, ResizePlan};
use operator_client::{Client, Heard, Place};
use serde_json::{Value, json};
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use crate::args::{CompactArgs, ExchangeArgs, ExpandArgs, Global, ShrinkArgs};
use crate::commands::{unexpected, with_progress};
use crate::ended::Ended;
use crate::reach::{client, note, place};
use crate::{Failure, print, print_json};

pub(crate) fn exchange(global: &Global, args: &ExchangeArgs) -> Result<(), Failure> {
    let ExchangeArgs { a, b, dry_run } = args;
    let mut client = client(global)?;
    let ended: Ended<ExchangePlan> = if *dry_run {
        Ended::would(client.plan_exchange(a, b))?
    } else {
        let command = Command::Exchange { a: a.clone(), b: b.clone() };
        Ended::done(with_progress(global, &mut client, &command, note))?
    };
    if global.json {
        print_json(&ended.json("would_exchange", &[]));
    }
    let text = match &ended {
        Ended::Refused(problem) => {
            return said(&format!("\"{a}\" and \"{b}\" were not exchanged: {}", problem.detail));
        }
        Ended::Would(ExchangePlan { partitions }) => {
            format!("{}nobody is in the way\n", lines(partitions, "would move"))
        }
        Ended::Done(Outcome::Exchanged { partitions, bytes, pause_us, copy_bytes_per_second }) => {
            format!(
                "{}{} MiB swapped, {:.1} GB/s, guests stopped for {:.1} ms\n",
                lines(partitions, "moved"),
                bytes >> 20,
                *copy_bytes_per_second as f64 / 1e9,
                milliseconds(*pause_us),
            )
        }
        Ended::Done(_) => return unexpected(),
    };
    say(global, &text)
}

pub(crate) fn expand(global: &Global, args: &ExpandArgs) -> Result<(), Failure> {
    let (to, by) = (args.to.map(|to| to.0), args.by.map(|by| by.0));
    let (name, make_room) = (args.name.clone(), args.make_room);
    if args.dry_run {
        // clap asks for one of the two.
        let size = to.map_or(NewSize::By(by.unwrap_or(0)), NewSize::UpTo);
        return plan_resize(global, &name, size, make_room, "expanded");
    }
    resize(global, &name.clone(), &Command::Expand { name, to, by, make_room }, "expanded")
}

pub(crate) fn shrink(global: &Global, args: &ShrinkArgs) -> Result<(), Failure> {
    let (name, to) = (args.name.clone(), args.to.0);
    if args.dry_run {
        return plan_resize(global, &name, NewSize::DownTo(to), false, "shrunk");
    }
    resize(global, &name.clone(), &Command::Shrink { name, to }, "shrunk")
}

fn plan_resize(
    global: &Global,
    name: &str,
    size: NewSize,
    make_room: bool,
    participle: &str,
) -> Result<(), Failure> {
    let plan = client(global)?.plan_resize(name, size, make_room);
    resized(global, name, &Ended::would(plan)?, participle)
}

fn resize(global: &Global, name: &str, command: &Command, participle: &str) -> Result<(), Failure> {
    let (mut client, interrupt) = interruptible(global)?;
    let outcome = with_progress(global, &mut client, command, |heard| {
        interrupt.hear(heard);
        note(heard);
    });
    resized(global, name, &Ended::done(outcome)?, participle)
}

fn resized(
    global: &Global,
    name: &str,
    ended: &Ended<ResizePlan>,
    participle: &str,
) -> Result<(), Failure> {
    if global.json {
        let mut value = ended.json("would_resize", &[("name", json!(name))]);
        if let Ended::Refused(problem) = ended {
            value["moved"] = json!(problem.more.moved);
        }
        print_json(&value);
    }
    let text = match ended {
        Ended::Refused(problem) => {
            let moved = lines(&problem.more.moved, "was moved");
            let reason = &problem.detail;
            return said(format!("not {participle}: {reason}\n{moved}").trim_end());
        }
        Ended::Would(ResizePlan { from, to, moves }) => format!(
            "{}{name} would be {participle} from {} to {}\n",
            lines(moves, "would first move"),
            Size(*from),
            Size(*to)
        ),
        Ended::Done(Outcome::Resized { from, to, guest_bytes, kept, moved, pause_us }) => {
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
        Ended::Done(_) => return unexpected(),
    };
    say(global, &text)
}

pub(crate) fn compact(global: &Global, args: &CompactArgs) -> Result<(), Failure> {
    let free = args.free.map(|size| size.0);
    let ended: Ended<CompactPlan> = if args.dry_run {
        Ended::would(client(global)?.plan_compact(free))?
    } else {
        let (mut client, interrupt) = interruptible(global)?;
        let command = Command::Compact { free };
        Ended::done(with_progress(global, &mut client, &command, |heard| match heard {
            Heard::Plan(plan) if !global.json => print(&plan_text(plan)),
            other => {
                interrupt.hear(other);
                note(other);
            }
        }))?
    };
    if global.json {
        print_json(&compact_json(&ended));
    }
    let text = match &ended {
        Ended::Refused(problem) => {
            let reason = &problem.detail;
            return said(&match problem.more.left {
                None => format!("not compacted: {reason}"),
                Some(left) => {
                    format!("{} moves done, {left} left: {reason}", problem.more.moved.len())
                }
            });
        }
        Ended::Would(plan) => plan_text(plan),
        Ended::Done(Outcome::Compacted { plan }) => {
            format!("{} free at {}\n", Size(plan.free_size), Size(plan.free_origin))
        }
        Ended::Done(_) => return unexpected(),
    };
    say(global, &text)
}

fn compact_json(ended: &Ended<CompactPlan>) -> Value {
    match ended {
        Ended::Would(plan) => json!({ "result": "would_compact", "plan": plan }),
        Ended::Refused(problem) => {
            let reason = &problem.detail;
            match problem.more.left {
                None => json!({
                    "result": "refused", "reason": reason, "in_the_way": problem.more.in_the_way,
                }),
                Some(left) => json!({
                    "result": "stopped", "reason": reason, "moved": problem.more.moved, "left": left,
                }),
            }
        }
        Ended::Done(_) => ended.json("", &[]),
    }
}

fn plan_text(plan: &CompactPlan) -> String {
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

/// A client whose command ends at Ctrl-C.
fn interruptible(global: &Global) -> Result<(Client, Interrupt), Failure> {
    let place = place(global)?;
    Ok((Client::new(&place)?, Interrupt::watch(place)))
}

/// Tells the host at Ctrl-C that it should end with the move in hand; the
/// second one ends this program.
struct Interrupt {
    /// The operation, once it has begun.
    operation: Arc<AtomicU64>,
    handle: Option<signal_hook::iterator::Handle>,
}

impl Interrupt {
    fn watch(place: Place) -> Self {
        let operation = Arc::new(AtomicU64::new(0));
        let Ok(mut signals) = Signals::new([SIGINT]) else {
            // Then Ctrl-C ends this program, and the host notices that.
            return Self { operation, handle: None };
        };
        let (handle, begun) = (signals.handle(), Arc::clone(&operation));
        let thread = std::thread::Builder::new().name("interrupt".into()).spawn(move || {
            let mut told = false;
            for _ in signals.forever() {
                if told {
                    // As the shell sees a program that was interrupted.
                    std::process::exit(128 + SIGINT);
                }
                told = true;
                eprintln!("\nending after the move in hand; Ctrl-C again ends only this program");
                let id = begun.load(Ordering::Relaxed);
                let cancelled = Client::new(&place).and_then(|mut client| client.cancel(id));
                if let Err(error) = cancelled {
                    eprintln!("berth: the host was not told: {error}");
                }
            }
        });
        drop(thread);
        Self { operation, handle: Some(handle) }
    }

    /// Hears which operation it is.
    fn hear(&self, heard: Heard<'_>) {
        if let Heard::Begun(id) = heard {
            self.operation.store(id, Ordering::Relaxed);
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.close();
        }
    }
}
