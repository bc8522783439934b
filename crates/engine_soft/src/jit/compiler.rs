//! The compiling thread of a machine and what it has compiled.
//!
//! A unit depends on nothing but the contents of the page and where in it the
//! unit begins, so one compilation serves all harts and all pages that are
//! alike. vCPUs ask with [`Compiler::ask`], which never waits, and find units
//! in their [`Inbox`] later.
//!
//! Code fills an [`Arena`]; when it is full the compiler starts another and
//! forgets all units. A vCPU lets go of the old arena when it gets the first
//! unit in the new one. So there are never more arenas than vCPUs and one.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::arena::{ARENA, Arena};
use super::generator::{CompileError, Generator};
use super::region::PageBytes;
use super::stubs::Stubs;

/// Requests that may wait; more are dropped, and made again by code that stays
/// hot.
const QUEUE: usize = 512;

/// How eager the compiler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompilerConfig {
    /// How often code is entered before it is compiled, 1 to 255.
    pub threshold: u8,
    /// Whether the guest waits for the compiler, so that what executes is the
    /// same from run to run: for tests.
    pub wait: bool,
}

impl Default for CompilerConfig {
    fn default() -> Self {
        Self { threshold: 100, wait: false }
    }
}

/// Memory and work of a [`Compiler`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompilerReport {
    /// Units compiled so far.
    pub units: usize,
    /// Bytes of machine code in the present arena.
    pub code: usize,
    /// Bytes that compiled code can take at most, for each vCPU and one more.
    pub code_limit: usize,
    /// Bytes that copies of guest pages take, beside the code.
    pub metadata: usize,
}

/// What a vCPU wants compiled.
pub(crate) struct Request {
    pub(crate) page: Box<PageBytes>,
    pub(crate) entry: u16,
    /// Where the answer belongs; handed back as it is.
    pub(crate) place: Place,
    pub(crate) inbox: Arc<Inbox>,
}

/// The place a unit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) physical: u64,
    /// Tells contents of the page apart.
    pub(crate) version: u64,
}

/// Compiled code and what keeps it mapped.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) code: usize,
    pub(crate) arena: Arc<Arena>,
}

/// A finished request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) place: Place,
    pub(crate) entry: u16,
    pub(crate) unit: Unit,
}

/// Where a vCPU's answers arrive.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    answers: Mutex<Vec<Answer>>,
    some: AtomicBool,
}

impl Inbox {
    /// Whether [`Inbox::take`] has something.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.some.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) -> Vec<Answer> {
        // The list is whole at every step.
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        self.some.store(false, Ordering::Release);
        std::mem::take(&mut *answers)
    }

    fn put(&self, answer: Answer) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
        self.some.store(true, Ordering::Release);
    }
}

/// See the module. Shared by all vCPUs of a machine; the thread ends with the
/// last of them.
#[derive(Debug)]
pub struct Compiler {
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
    stubs: Arc<Stubs>,
    config: CompilerConfig,
    state: Arc<State>,
    /// With [`CompilerConfig::wait`] there is no thread.
    here: Option<Mutex<Worker>>,
}

#[derive(Debug, Default)]
struct State {
    units: AtomicUsize,
    code: AtomicUsize,
    pages: AtomicUsize,
}

impl Compiler {
    /// Starts the compiling thread.
    ///
    /// # Errors
    /// [`CompileError`]: this host cannot compile; machines run all the same.
    pub fn start(config: CompilerConfig) -> Result<Arc<Self>, CompileError> {
        let (generator, stubs) = Generator::new()?;
        let state = Arc::new(State::default());
        let mut worker = Worker {
            generator,
            stubs: Arc::clone(&stubs),
            arena: Arc::new(Arena::new(ARENA).map_err(CompileError::Memory)?),
            pages: HashMap::new(),
            state: Arc::clone(&state),
        };
        let mut compiler =
            Self { requests: None, thread: None, stubs, config, state, here: None };
        if config.wait {
            compiler.here = Some(Mutex::new(worker));
        } else {
            let (requests, receiver) = sync_channel(QUEUE);
            compiler.requests = Some(requests);
            compiler.thread = Some(
                std::thread::Builder::new()
                    .name("compiler".into())
                    .spawn(move || worker.work(&receiver))
                    .map_err(CompileError::Memory)?,
            );
        }
        Ok(Arc::new(compiler))
    }

    /// Memory and work so far.
    #[must_use]
    pub fn report(&self) -> CompilerReport {
        CompilerReport {
            units: self.state.units.load(Ordering::Relaxed),
            code: self.state.code.load(Ordering::Relaxed),
            code_limit: ARENA,
            metadata: self.state.pages.load(Ordering::Relaxed) * size_of::<PageBytes>(),
        }
    }

    pub(crate) fn config(&self) -> CompilerConfig {
        self.config
    }

    pub(crate) fn stubs(&self) -> &Stubs {
        &self.stubs
    }

    /// Asks for a unit; whether there was room for the request.
    pub(crate) fn ask(&self, request: Request) -> bool {
        if let Some(worker) = &self.here {
            worker.lock().unwrap_or_else(PoisonError::into_inner).serve(request);
            return true;
        }
        self.requests.as_ref().is_some_and(|requests| requests.try_send(request).is_ok())
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        // The thread ends when there is nobody left to ask.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Units by the contents of their page.
struct KnownPage {
    bytes: Box<PageBytes>,
    /// By entry; none where there can be none.
    units: HashMap<u16, Option<Unit>>,
}

struct Worker {
    generator: Generator,
    stubs: Arc<Stubs>,
    arena: Arc<Arena>,
    /// By hash of the contents.
    pages: HashMap<u64, Vec<KnownPage>>,
    state: Arc<State>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    fn work(&mut self, requests: &Receiver<Request>) {
        while let Ok(request) = requests.recv() {
            self.serve(request);
        }
    }

    fn serve(&mut self, request: Request) {
        let Request { page, entry, place, inbox } = request;
        if let Some(unit) = self.unit(page, entry) {
            inbox.put(Answer { place, entry, unit });
        }
    }

    fn unit(&mut self, page: Box<PageBytes>, entry: u16) -> Option<Unit> {
        let mut hasher = DefaultHasher::new();
        page.hash(&mut hasher);
        let key = hasher.finish();
        if let Some(known) = self.known(key, &page) {
            if let Some(unit) = known.units.get(&entry) {
                return unit.clone();
            }
        }
        let unit = self.compile(&page, entry);
        if self.known(key, &page).is_none() {
            self.state.pages.fetch_add(1, Ordering::Relaxed);
            let known = KnownPage { bytes: page.clone(), units: HashMap::new() };
            self.pages.entry(key).or_default().push(known);
        }
        self.known(key, &page)?.units.insert(entry, unit.clone());
        unit
    }

    fn known(&mut self, key: u64, page: &PageBytes) -> Option<&mut KnownPage> {
        self.pages.get_mut(&key)?.iter_mut().find(|known| *known.bytes == *page)
    }

    fn compile(&mut self, page: &PageBytes, entry: u16) -> Option<Unit> {
        // What the generator refuses the interpreter executes.
        let code = self.generator.unit(&self.stubs, page, entry.into())?.ok()?;
        let address = match self.arena.add(&[&code]) {
            Some(addresses) => addresses[0],
            None => {
                self.arena = Arc::new(Arena::new(ARENA).ok()?);
                self.pages.clear();
                self.state.pages.store(0, Ordering::Relaxed);
                self.arena.add(&[&code])?[0]
            }
        };
        self.state.units.fetch_add(1, Ordering::Relaxed);
        self.state.code.store(self.arena.used(), Ordering::Relaxed);
        Some(Unit { code: address, arena: Arc::clone(&self.arena) })
    }
}
