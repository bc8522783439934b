//! `berth console`: this terminal becomes the guest's.

use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use operator_client::Session;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::args::{Global, NameArg};
use crate::reach::client;
use crate::{Failure, print_json};

/// Ctrl-]: detaches.
const DETACH: u8 = 0x1d;
/// How long the guest may go on after input that is no terminal has ended.
const AFTER_INPUT: Duration = Duration::from_secs(1);

pub(crate) fn console(global: &Global, args: &NameArg) -> Result<(), Failure> {
    let mut client = client(global)?;
    let Session { stream, read } = match client.attach(&args.name) {
        Ok(session) => session,
        Err(error) if error.problem("not-now").is_some() => {
            // Of a guest that is gone there may be last words.
            let Ok(words) = client.last_words(&args.name) else { return Err(error.into()) };
            eprintln!("{error}. What it said last:");
            let mut stdout = io::stdout().lock();
            stdout.write_all(&words)?;
            stdout.flush()?;
            return detached(global, args, false);
        }
        Err(error) => return Err(error.into()),
    };
    let terminal = io::stdin().is_terminal();
    if terminal {
        eprintln!("attached to {}; Ctrl-] detaches", args.name);
    }
    let raw = Raw::enter()?;
    let input = stream.try_clone()?;
    // It ends with the process: a read of a terminal cannot be called off.
    std::thread::Builder::new().name("input".into()).spawn(move || type_into(input, terminal))?;
    let result = show(stream, &read);
    drop(raw);
    result?;
    detached(global, args, terminal)
}

fn detached(global: &Global, args: &NameArg, terminal: bool) -> Result<(), Failure> {
    if global.json {
        print_json(&serde_json::json!({ "result": "detached", "name": args.name }));
    } else if terminal {
        eprintln!("\ndetached from {}", args.name);
    }
    Ok(())
}

/// Sends what is typed until the detach key or the end of input, then ends the
/// session.
fn type_into(mut stream: UnixStream, terminal: bool) {
    let mut buffer = [0; 1024];
    loop {
        let count = match io::stdin().lock().read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => {
                // A script's last words get an answer.
                std::thread::sleep(AFTER_INPUT);
                break;
            }
            Ok(count) => count,
        };
        let typed = &buffer[..count];
        let detach = typed.iter().position(|byte| terminal && *byte == DETACH);
        let sent = stream.write_all(&typed[..detach.unwrap_or(count)]);
        if detach.is_some() || sent.is_err() {
            break;
        }
    }
    // It fails only if the session is over already.
    let _ = stream.shutdown(Shutdown::Both);
}

fn show(mut stream: UnixStream, read: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(read)?;
    let mut buffer = vec![0; 16 << 10];
    loop {
        stdout.flush()?;
        match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => stdout.write_all(&buffer[..count])?,
        }
    }
}

/// A terminal that passes every key on; as before when dropped.
pub(crate) struct Raw(Option<Termios>);

impl Raw {
    pub(crate) fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Flush, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing helps a terminal that is gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}
