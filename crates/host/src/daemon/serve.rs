//! One client's connection: a request, its answer, or the session it becomes.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use main_storage::PartitionName;
use rustix::net::RecvFlags;

use super::Shared;
use super::board::{CommandError, Run};
use super::process::Process;
use super::resize::Wanted;
use super::station;
use crate::control::{Lines, Reply, Request, send};
use crate::link::Order;

/// How long a client may take to send its request.
const REQUEST: Duration = Duration::from_secs(10);
/// How long a client may take to read an answer.
const REPLY: Duration = Duration::from_secs(10);
/// How long a session waits for the guest to serve commands.
const READY: Duration = Duration::from_secs(120);
/// How long `up` waits for every guest.
const ALL_READY: Duration = Duration::from_secs(600);

/// There are too many.
pub(super) fn turn_away(client: &UnixStream) {
    // Never waits: the accepting thread is the only one there is.
    let _ = client.set_nonblocking(true);
    let message = "the host has as many clients as it serves; try again later".to_owned();
    let _ = send(&mut &*client, &Reply::Refused { message });
}

/// Reads the request and answers it.
pub(super) fn serve(shared: &Arc<Shared>, client: UnixStream) {
    let prepared = client
        .set_nonblocking(false)
        .and_then(|()| client.set_read_timeout(Some(REQUEST)))
        .and_then(|()| client.set_write_timeout(Some(REPLY)));
    if let Err(error) = prepared {
        tracing::warn!(%error, "a client's connection cannot be used");
        return;
    }
    let mut lines = Lines::new(&client);
    let request = match lines.receive::<Request>() {
        Ok(None) => return,
        Ok(Some(request)) if lines.into_rest().1.is_empty() => request,
        Ok(Some(_)) => return refuse(&client, "a client sends one request and waits".to_owned()),
        Err(error) => return refuse(&client, error.to_string()),
    };
    tracing::debug!(?request, "request");
    let counted = station::counted(&request);
    let reply = match request {
        Request::Exec { name, argv, env, cwd } => {
            let order = Order::Exec { argv, env, cwd };
            return hand_over(shared, &name, &order, client, true);
        }
        Request::Console { name } => {
            if shared.show_last_words(&name, &client) {
                return;
            }
            return hand_over(shared, &name, &Order::Console, client, false);
        }
        Request::Down => return down(shared, client),
        Request::Status => Ok(Reply::Status(shared.board().status())),
        Request::PoolStatus => Ok(Reply::Pools { pools: shared.pools.status() }),
        Request::PoolResume { name } => {
            shared.pools.resume(&name).map(|()| Reply::Done).map_err(CommandError::Pool)
        }
        Request::PoolResize { name, min, max } => {
            let resized = shared.pools.resize(&name, (min, max));
            resized.map(|()| Reply::Done).map_err(CommandError::Pool)
        }
        Request::Files { request } => shared.files_request(request),
        Request::Database { request } => shared.database_request(request),
        Request::Create(new) => shared.create(&new).map(|origin| Reply::Created { origin }),
        Request::Delete { name } => shared.delete(&name).map(|()| Reply::Done),
        Request::Start { name } => shared.start(&name).map(|()| Reply::Done),
        Request::Stop { name, now } => shared.stop_partition(&name, now).map(|()| Reply::Done),
        Request::Restart { name, now } => shared.restart(&name, now).map(|()| Reply::Done),
        Request::Move { name, to, mode, dry_run } => {
            shared.relocate(&name, (to, mode), dry_run, &mut hearing(&client)).map(Reply::Move)
        }
        Request::Exchange { names: [a, b], dry_run } => {
            shared.exchange([&a, &b], dry_run, &mut hearing(&client)).map(Reply::Exchange)
        }
        Request::Resize { name, size, make_room, dry_run } => {
            let wanted = Wanted { name: &name, size, make_room, dry_run };
            shared.resize(&wanted, &|| has_left(&client), &mut hearing(&client)).map(Reply::Resize)
        }
        Request::Compact { free, dry_run } => {
            let outcome =
                shared.compact(free, dry_run, &|| has_left(&client), &mut hearing(&client));
            Ok(Reply::Compact(outcome))
        }
        Request::WaitUp => wait_up(shared, &client),
        Request::OpenConsole { role } => {
            shared.open_console(role).map(|url| Reply::Link { url }).map_err(CommandError::Console)
        }
    };
    shared.count(counted, &reply);
    match reply {
        Ok(reply) => answer(&client, &reply),
        Err(error) => refuse(&client, error.to_string()),
    }
}

/// Whether the client has closed its connection, or its side of it: it waits
/// for no more than the move in hand.
fn has_left(client: &UnixStream) -> bool {
    let mut byte = [0];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match rustix::net::recv(client, &mut byte, flags) {
        Ok((_, count)) => count == 0,
        Err(error) => error != rustix::io::Errno::AGAIN && error != rustix::io::Errno::INTR,
    }
}

/// Tells the client of progress. One that does not listen does not hold up the
/// command.
fn hearing(client: &UnixStream) -> impl FnMut(&Reply) {
    let mut heard = true;
    move |reply| heard = heard && send(&mut &*client, reply).is_ok()
}

fn answer(client: &UnixStream, reply: &Reply) {
    if let Err(error) = send(&mut &*client, reply) {
        tracing::debug!(%error, "a client did not hear its answer");
    }
}

fn refuse(client: &UnixStream, message: String) {
    answer(client, &Reply::Refused { message });
}

/// Ends the host. The connection ends with the process, which is how the
/// client knows that it has.
fn down(shared: &Arc<Shared>, client: UnixStream) {
    answer(&client, &Reply::Note { text: "every guest is asked to power off".to_owned() });
    shared.end_all();
    answer(&client, &Reply::Done);
    shared.stop();
    std::mem::forget(client);
}

/// Gives the client's connection to the partition's worker.
fn hand_over(shared: &Shared, name: &str, order: &Order, client: UnixStream, ready: bool) {
    let worker = if ready { ready_worker(shared, name, &client) } else { any_worker(shared, name) };
    // A machine of a pool that nobody uses stands still.
    if let Ok(process) = &worker {
        if shared.capture_of(&process.name).is_some() {
            shared.pools.visit(&process.name);
        }
    }
    let result = worker.and_then(|process| {
        let unreachable = |source| CommandError::Worker { name: process.name.clone(), source };
        send(&mut &client, &Reply::Attached).map_err(unreachable)?;
        process.give(order, &[client.as_fd()]).map_err(unreachable)
    });
    if let Err(error) = result {
        refuse(&client, error.to_string());
    }
}

fn any_worker(shared: &Shared, name: &str) -> Result<Arc<Process>, CommandError> {
    shared.board().get(name)?.running()
}

/// The worker of a partition once its guest serves commands.
fn ready_worker(
    shared: &Shared,
    name: &str,
    client: &UnixStream,
) -> Result<Arc<Process>, CommandError> {
    let process = any_worker(shared, name)?;
    if process.is_ready() {
        return Ok(process);
    }
    let text = format!("the guest in \"{name}\" is still starting; waiting for it");
    // Who does not listen now gets no session later.
    let told: io::Result<()> = send(&mut &*client, &Reply::Note { text });
    told.map_err(|source| CommandError::Worker { name: process.name.clone(), source })?;
    let found = shared.wait_for(Instant::now() + READY, |board| match board.get(name) {
        Err(error) => Some(Err(error)),
        Ok(partition) => match partition.running() {
            Err(error) => Some(Err(error)),
            Ok(process) => process.is_ready().then_some(Ok(process)),
        },
    });
    let name = process.name.clone();
    found.unwrap_or(Err(CommandError::NotReady { name, seconds: READY.as_secs() }))
}

/// Waits until every partition that starts with the host is ready, and tells
/// the client of each.
fn wait_up(shared: &Shared, client: &UnixStream) -> Result<Reply, CommandError> {
    let deadline = Instant::now() + ALL_READY;
    let started = Instant::now();
    let mut waiting = shared.board().awaited.clone();
    let mut failed = None;
    let pool = |name: &PartitionName| shared.config.file.pool_of(name).is_some();
    while !waiting.is_empty() && failed.is_none() {
        let settled = shared.wait_for(deadline, |board| {
            waiting.iter().enumerate().find_map(|(index, name)| {
                let partition = board.partitions.get(name)?;
                match &partition.run {
                    // A machine of a pool boots only to be captured.
                    Run::Running(process) if pool(name) && !process.is_copy() => None,
                    Run::Running(process) => process.is_ready().then_some((index, None)),
                    Run::Failed => Some((index, Some(partition.running().err()?))),
                    // Not started yet, or started and ended by itself.
                    Run::Stopped if partition.reason.is_none() || pool(name) => None,
                    Run::Stopped => Some((index, Some(partition.running().err()?))),
                }
            })
        });
        let Some((index, error)) = settled else {
            let (name, seconds) = (waiting[0].clone(), ALL_READY.as_secs());
            return Err(CommandError::NotReady { name, seconds });
        };
        let name = waiting.swap_remove(index);
        failed = error;
        if failed.is_none() {
            let seconds = started.elapsed().as_secs_f64();
            let text = format!("{name} is ready ({seconds:.1} s)");
            let _ = send(&mut &*client, &Reply::Note { text });
        }
    }
    failed.map_or(Ok(Reply::Done), Err)
}
