//! The users' side: conversations over the gateway's socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use lu62::{Conversation, Incoming, Partner, Request, State};

use super::{PATIENCE, POOL, PoolBenchError};

const LINE: &[u8] = b"are you there?\n";

fn request(partner: &Partner, program: &str, user: &str) -> Request {
    let mut request = Request::initialize(partner.clone());
    request
        .set_tp_name(&format!("{POOL}/{program}"))
        .set_security_same(user)
        .set_timeout(Some(PATIENCE));
    request
}

/// From the start of ALLOCATE to the first data from the program; microseconds.
pub(super) fn first_byte(partner: &Partner, program: &str) -> Result<f64, PoolBenchError> {
    let request = request(partner, program, "bench");
    let started = Instant::now();
    let mut conversation = request.allocate()?;
    conversation.send_data(LINE)?;
    let heard = data(&mut conversation)?;
    let micros = started.elapsed().as_secs_f64() * 1e6;
    same(&heard)?;
    end(conversation)?;
    Ok(micros)
}

/// The same question `count` times on one open conversation; microseconds
/// each.
pub(super) fn echoes(partner: &Partner, count: usize) -> Result<Vec<f64>, PoolBenchError> {
    let mut conversation = request(partner, "echo", "bench").allocate()?;
    conversation.confirm()?;
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        conversation.send_data(LINE)?;
        let heard = data(&mut conversation)?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
        same(&heard)?;
        turn(&mut conversation)?;
    }
    conversation.deallocate()?;
    Ok(times)
}

/// A thread that sends each byte back that it gets by a Unix socket.
pub(super) struct Echo(UnixStream);

impl Echo {
    pub(super) fn start() -> Result<Self, PoolBenchError> {
        let (ours, mut theirs) = UnixStream::pair().map_err(PoolBenchError::Socket)?;
        thread::spawn(move || {
            let mut byte = [0];
            while matches!(theirs.read(&mut byte), Ok(1)) && theirs.write_all(&byte).is_ok() {}
        });
        Ok(Self(ours))
    }

    /// One round trip; microseconds. As between users of a host that has nothing
    /// else to do, the other thread is asleep.
    pub(super) fn round_trip(&mut self) -> Result<f64, PoolBenchError> {
        let mut round_trip = || -> io::Result<f64> {
            let started = Instant::now();
            self.0.write_all(b"?")?;
            self.0.read_exact(&mut [0])?;
            Ok(started.elapsed().as_secs_f64() * 1e6)
        };
        round_trip().map_err(PoolBenchError::Socket)
    }
}

/// A conversation that fills memory of its machine.
pub(super) fn write(partner: &Partner) -> Result<(), PoolBenchError> {
    let mut conversation = request(partner, "write", "bench").allocate()?;
    // It says so when it has written.
    data(&mut conversation)?;
    end(conversation)
}

/// `clients` at once allocate and deallocate `cycles` times each; how many
/// conversations per second.
pub(super) fn claims(
    partner: &Partner,
    clients: usize,
    cycles: usize,
) -> Result<f64, PoolBenchError> {
    let started = Instant::now();
    let threads: Vec<_> = (0..clients)
        .map(|client| {
            let request = request(partner, "echo", &format!("bench-{client}"));
            thread::spawn(move || -> Result<(), PoolBenchError> {
                for _ in 0..cycles {
                    // Confirmed: a machine accepted it, and its program ended.
                    request.allocate()?.deallocate()?;
                }
                Ok(())
            })
        })
        .collect();
    // All are waited for, also when one failed.
    let ends: Vec<_> = threads.into_iter().map(thread::JoinHandle::join).collect();
    for end in ends {
        end.map_err(|_| PoolBenchError::Client)??;
    }
    Ok((clients * cycles) as f64 / started.elapsed().as_secs_f64())
}

fn data(conversation: &mut Conversation) -> Result<Vec<u8>, PoolBenchError> {
    loop {
        if let Incoming::Data(data) = conversation.receive()? {
            return Ok(data.bytes);
        }
    }
}

/// Takes the right to send back.
fn turn(conversation: &mut Conversation) -> Result<(), PoolBenchError> {
    if conversation.state() == State::Receive {
        conversation.request_to_send()?;
    }
    while conversation.state() == State::Receive {
        conversation.receive()?;
    }
    Ok(())
}

fn end(mut conversation: Conversation) -> Result<(), PoolBenchError> {
    turn(&mut conversation)?;
    Ok(conversation.deallocate()?)
}

fn same(heard: &[u8]) -> Result<(), PoolBenchError> {
    if heard == LINE {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(PoolBenchError::Answer { said: text(LINE), heard: text(heard) })
}
