//! `berth exec`: a command in a guest, joined to this process.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_protocol::{DATA_CHUNK, Decoder, Message, ReceiveWindow, SESSION_STREAM, SendWindow};
use operator_api::model::Exec;
use operator_client::{ClientError, Session};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::args::{ExecArgs, Global};
use crate::reach::client;
use crate::{Failure, print_json};

/// Seconds for which it waits for a guest that is still starting.
const READY: u32 = 120;
/// How long a command may take to end by a signal.
const PATIENCE: Duration = Duration::from_secs(10);
/// How such a guest is refused.
const STARTING: &str = "urn:berth:starting";

pub(crate) fn exec(global: &Global, args: ExecArgs) -> Result<ExitCode, Failure> {
    let Session { stream, read } = open(global, args)?;
    let guest = Arc::new(ToGuest::new(stream.try_clone()?));
    forward_signals(&guest)?;
    let feeder = Arc::clone(&guest);
    // It ends with the process: a read of a terminal cannot be called off.
    std::thread::Builder::new().name("stdin".into()).spawn(move || feeder.feed())?;
    let mut output = if global.json { Output::kept() } else { Output::Passed };
    let status = Reader { stream, read, guest: &guest }.run(&mut output)?;
    output.end(status);
    Ok(ExitCode::from(status))
}

fn open(global: &Global, args: ExecArgs) -> Result<Session, Failure> {
    let ExecArgs { name, env, cwd, command: argv } = args;
    let mut client = client(global)?;
    let mut exec = Exec { argv, env: env.into_iter().collect(), cwd, wait: 0 };
    match client.exec(&name, &exec) {
        Err(ClientError::Refused(problem)) if problem.kind == STARTING => {
            eprintln!("{}; waiting for it", problem.detail);
            exec.wait = READY;
            Ok(client.exec(&name, &exec)?)
        }
        session => Ok(session?),
    }
}

/// What goes to the guest: several threads send, frames stay whole.
struct ToGuest {
    stream: Mutex<UnixStream>,
    window: Mutex<SendWindow>,
    refilled: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ToGuest {
    fn new(stream: UnixStream) -> Self {
        let (stream, window) = (Mutex::new(stream), Mutex::new(SendWindow::new()));
        Self { stream, window, refilled: Condvar::new() }
    }

    fn say(&self, message: &Message) -> io::Result<()> {
        let mut frame = Vec::new();
        message.encode(SESSION_STREAM, &mut frame).map_err(io::Error::other)?;
        lock(&self.stream).write_all(&frame)
    }

    /// Sends standard input as far as the guest takes it, to its end.
    fn feed(&self) {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; DATA_CHUNK];
        loop {
            let count = match stdin.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // No standard input is an empty one.
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                let part = self.spend(rest.len());
                if self.say(&Message::Stdin(rest[..part].to_vec())).is_err() {
                    return;
                }
                rest = &rest[part..];
            }
        }
        // If the guest is gone, whoever reads its frames has noticed.
        let _ = self.say(&Message::StdinEnd);
    }

    /// Waits for credit and spends it, for `wanted` bytes at most.
    fn spend(&self, wanted: usize) -> usize {
        let mut window = lock(&self.window);
        loop {
            let part = window.spend(wanted);
            if part > 0 {
                return part;
            }
            window = self.refilled.wait(window).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn refill(&self, bytes: u32) -> bool {
        let refilled = lock(&self.window).refill(bytes).is_ok();
        self.refilled.notify_all();
        refilled
    }
}

/// Signals meant for this process are meant for the command. One that does not end by
/// them, or whose guest hangs, is left: by a second Ctrl-C at once, by the others after
/// [`PATIENCE`].
fn forward_signals(guest: &Arc<ToGuest>) -> Result<(), Failure> {
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    let guest = Arc::clone(guest);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut interrupted = false;
        for signal in signals.forever() {
            let number = u8::try_from(signal).unwrap_or(15);
            if signal == SIGINT && std::mem::replace(&mut interrupted, true) {
                leave(number);
            }
            if matches!(signal, SIGTERM | SIGHUP) {
                let later = move || {
                    std::thread::sleep(PATIENCE);
                    leave(number)
                };
                if std::thread::Builder::new().name("patience".into()).spawn(later).is_err() {
                    leave(number);
                }
            }
            // Whoever reads the guest's frames notices that it is gone.
            let _ = guest.say(&Message::Signal(number));
        }
    })?;
    Ok(())
}

/// Ends this process as the signal would have; the host ends the command then.
fn leave(signal: u8) -> ! {
    eprintln!("berth: the command does not end; it is left, and killed if its guest still can");
    std::process::exit(128 + i32::from(signal));
}

/// Where the command's output goes.
enum Output {
    /// To this process's own.
    Passed,
    /// Into the JSON at the end.
    Kept { stdout: Vec<u8>, stderr: Vec<u8> },
}

impl Output {
    fn kept() -> Self {
        Self::Kept { stdout: Vec::new(), stderr: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8], error: bool) -> io::Result<()> {
        match self {
            Self::Kept { stderr, .. } if error => stderr.extend_from_slice(bytes),
            Self::Kept { stdout, .. } => stdout.extend_from_slice(bytes),
            Self::Passed if error => io::stderr().write_all(bytes)?,
            Self::Passed => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()?;
            }
        }
        Ok(())
    }

    fn end(&self, status: u8) {
        if let Self::Kept { stdout, stderr } = self {
            let text = String::from_utf8_lossy;
            print_json(&serde_json::json!({
                "result": "exited",
                "status": status,
                "stdout": text(stdout),
                "stderr": text(stderr),
            }));
        }
    }
}

/// Reads what the guest sends.
struct Reader<'a> {
    stream: UnixStream,
    read: Vec<u8>,
    guest: &'a ToGuest,
}

impl Reader<'_> {
    /// Until the command has ended; returns its status.
    fn run(mut self, output: &mut Output) -> Result<u8, Failure> {
        let mut decoder = Decoder::new();
        let mut window = ReceiveWindow::new();
        let mut buffer = std::mem::take(&mut self.read);
        loop {
            let mut input = &buffer[..];
            while let Some((_, message)) =
                decoder.next(&mut input).map_err(|error| Failure::Other(error.to_string()))?
            {
                if let Some(status) = self.hear(message, &mut window, output)? {
                    return Ok(status);
                }
            }
            buffer.resize(64 << 10, 0);
            let count = match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Ok(0) | Err(_) => {
                    let what = "the guest ended before the command did; see `berth status`";
                    return Err(Failure::Other(what.to_owned()));
                }
                Ok(count) => count,
            };
            buffer.truncate(count);
        }
    }

    fn hear(
        &self,
        message: Message,
        window: &mut ReceiveWindow,
        output: &mut Output,
    ) -> Result<Option<u8>, Failure> {
        let wrong = |what: &str| Failure::Other(format!("the host broke the protocol: {what}"));
        match message {
            Message::Stdout(ref bytes) | Message::Stderr(ref bytes) => {
                window.arrived(bytes.len()).map_err(|_| wrong("more output than asked for"))?;
                let error = matches!(message, Message::Stderr(_));
                if output.take(bytes, error).is_err() {
                    // Nobody reads: as for a local command, that ends it.
                    let _ = self.guest.say(&Message::Close);
                    return Ok(Some(128 + 13));
                }
                if let Some(credit) = window.consumed(bytes.len()) {
                    // If this fails the next read says why.
                    let _ = self.guest.say(&Message::Credit(credit));
                }
            }
            Message::Credit(bytes) => {
                if !self.guest.refill(bytes) {
                    return Err(wrong("more credit than was spent"));
                }
            }
            Message::Exited(status) => return Ok(Some(status.shell_code())),
            Message::Failed(why) => return Err(Failure::Other(why)),
            other => return Err(wrong(other.name())),
        }
        Ok(None)
    }
}
