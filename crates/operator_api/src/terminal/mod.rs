//! Guests' consoles for pages: one terminal for each that somebody looks at,
//! whoever else does. A page gets the screen as it is, not what led to it, so
//! that one that reads slowly misses nothing but what was overwritten.

mod screen;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};

use crate::operator::Console;
pub(crate) use screen::{COLUMNS, Row, Run, Screen};

/// Terminals at once.
const MOST: usize = 64;
/// Bytes that are looked at between two pauses.
const PIECE: usize = 512;
/// Of the time that a guest's output takes, how often it is waited as well: a
/// guest that floods its console has a quarter of a thread.
const REST: u32 = 3;
/// How long the guest's machine may take none of what is typed.
const TYPED: Duration = Duration::from_secs(5);

/// The terminals that somebody looks at, by partition.
#[derive(Debug, Default)]
pub(crate) struct Terminals(Mutex<BTreeMap<String, Weak<Terminal>>>);

/// One console and what it shows.
#[derive(Debug)]
pub(crate) struct Terminal {
    screen: Mutex<Screen>,
    changed: watch::Sender<u64>,
    over: AtomicBool,
    stream: Option<UnixStream>,
    /// Who types, types alone.
    typing: Semaphore,
}

/// Why nothing was typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTyped {
    /// Nothing runs behind it.
    Over,
    /// The guest does not take it.
    Stuck,
}

impl Terminals {
    /// The terminal of a console that is looked at already.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Terminal>> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(name)?.upgrade().filter(|terminal| !terminal.is_over())
    }

    /// Makes one for `console`; whoever was first is the one for all. `None` if
    /// there are too many.
    pub(crate) fn open(&self, name: &str, console: Console) -> Option<Arc<Terminal>> {
        let stream = match console {
            Console::Over(words) => return Some(Arc::new(Terminal::over(&words))),
            Console::Live(stream) => stream,
        };
        if let Some(first) = self.find(name) {
            return Some(first);
        }
        let terminal = Terminal::live(stream)?;
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, terminal| terminal.strong_count() > 0);
        if let Some(first) = open.get(name).and_then(Weak::upgrade) {
            if !first.is_over() {
                return Some(first);
            }
        }
        if open.len() >= MOST {
            return None;
        }
        open.insert(name.to_owned(), Arc::downgrade(&terminal));
        Some(terminal)
    }
}

impl Terminal {
    fn of(screen: Screen, stream: Option<UnixStream>) -> Self {
        let over = AtomicBool::new(stream.is_none());
        let (screen, changed) = (Mutex::new(screen), watch::Sender::new(0));
        Self { screen, changed, over, stream, typing: Semaphore::new(1) }
    }

    fn over(words: &[u8]) -> Self {
        Self::of(Screen::last(words), None)
    }

    fn live(stream: UnixStream) -> Option<Arc<Self>> {
        let usable = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_write_timeout(Some(TYPED)))
            .and_then(|()| stream.try_clone());
        let reader = usable.ok()?;
        let terminal = Arc::new(Self::of(Screen::new(), Some(stream)));
        let weak = Arc::downgrade(&terminal);
        let thread = std::thread::Builder::new().name("terminal".into());
        thread.spawn(move || follow(reader, &weak)).ok()?;
        Some(terminal)
    }

    fn screen(&self) -> MutexGuard<'_, Screen> {
        // If a byte broke it, what it shows is still something.
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing more will come.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Counts changes.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What it shows, where the cursor is, and how arrow keys are sent.
    pub(crate) fn look(&self) -> (Vec<Row>, Option<[usize; 2]>, bool) {
        let screen = self.screen();
        (screen.rows(), screen.cursor(), screen.application_keys())
    }

    /// Types `text`.
    pub(crate) async fn type_in(self: Arc<Self>, text: String) -> Result<(), NotTyped> {
        let turn = tokio::time::timeout(TYPED, self.typing.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(NotTyped::Stuck) };
        let this = Arc::clone(&self);
        let typed = tokio::task::spawn_blocking(move || match &this.stream {
            Some(stream) if !this.is_over() => (&*stream).write_all(text.as_bytes()),
            _ => Err(ErrorKind::BrokenPipe.into()),
        });
        match typed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                Err(NotTyped::Stuck)
            }
            _ => Err(NotTyped::Over),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            // Its thread ends, and the worker's.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Marks the terminal, however its thread ends.
struct End<'a>(&'a Weak<Terminal>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        if let Some(terminal) = self.0.upgrade() {
            terminal.over.store(true, Ordering::Release);
            terminal.changed.send_modify(|changes| *changes += 1);
        }
    }
}

/// Shows what comes until nobody looks or nothing comes any more.
fn follow(mut stream: UnixStream, terminal: &Weak<Terminal>) {
    let _end = End(terminal);
    let mut buffer = [0; PIECE];
    loop {
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let Some(terminal) = terminal.upgrade() else { return };
        let began = Instant::now();
        terminal.screen().feed(buffer.get(..count).unwrap_or_default());
        terminal.changed.send_modify(|changes| *changes += 1);
        drop(terminal);
        std::thread::sleep(began.elapsed() * REST);
    }
}
