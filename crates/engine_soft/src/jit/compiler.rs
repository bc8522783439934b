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

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::arena::{ARENA, Arena};
use super::generator::{CompileError, Generator};
use super::region::{Executed, PageBytes, Source};
use super::stubs::Stubs;
use crate::memory;

/// Requests that may wait. The newest is served first, since it is for what is
/// hot now; when there are more the oldest is dropped.
const QUEUE: usize = 256;

/// After so long without a request the compiler gives its working memory back.
const REST: Duration = Duration::from_secs(1);

/// Guest pages whose units are known by their contents, at most.
const MAX_PAGES: usize = 1024;

/// How eager the compiler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompilerConfig {
    /// How often code is entered before it is compiled, at least 1.
    pub threshold: u16,
    /// Whether the guest waits for the compiler, so that what executes is the
    /// same from run to run: for tests.
    pub wait: bool,
    /// Whether code is compiled with its neighbourhood though that was never
    /// executed: for tests.
    pub whole: bool,
}

impl Default for CompilerConfig {
    fn default() -> Self {
        Self { threshold: 3000, wait: false, whole: false }
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
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) page: Box<PageBytes>,
    /// The first parcel of what follows the page, if that is known.
    pub(crate) tail: Option<u16>,
    pub(crate) executed: Box<Executed>,
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
        let mut answers = lock(&self.answers);
        self.some.store(false, Ordering::Release);
        std::mem::take(&mut *answers)
    }

    fn put(&self, answer: Answer) {
        lock(&self.answers).push(answer);
        self.some.store(true, Ordering::Release);
    }
}

// Critical sections here leave their data whole at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Requests on their way to the compiling thread; `None` once nobody can ask
/// any more.
#[derive(Debug)]
struct Queue {
    requests: Mutex<Option<VecDeque<Request>>>,
    some: Condvar,
}

impl Default for Queue {
    fn default() -> Self {
        Self { requests: Mutex::new(Some(VecDeque::new())), some: Condvar::new() }
    }
}

impl Queue {
    fn push(&self, request: Request) {
        if let Some(requests) = &mut *lock(&self.requests) {
            if requests.len() == QUEUE {
                requests.pop_front();
            }
            requests.push_back(request);
        }
        self.some.notify_one();
    }

    /// The newest request, when there is one; `None` at the end. Calls `rest`
    /// once if there is none for a while.
    fn pop(&self, rest: impl FnOnce()) -> Option<Request> {
        let mut rest = Some(rest);
        let mut requests = lock(&self.requests);
        loop {
            if let Some(request) = requests.as_mut()?.pop_back() {
                return Some(request);
            }
            if rest.is_none() {
                requests = self.some.wait(requests).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.some.wait_timeout(requests, REST);
            let (held, result) = waited.unwrap_or_else(PoisonError::into_inner);
            requests = held;
            if result.timed_out() && requests.as_ref().is_some_and(VecDeque::is_empty) {
                drop(requests);
                if let Some(rest) = rest.take() {
                    rest();
                }
                requests = lock(&self.requests);
            }
        }
    }

    fn close(&self) {
        *lock(&self.requests) = None;
        self.some.notify_one();
    }
}

/// See the module. Shared by all vCPUs of a machine; the thread ends with the
/// last of them.
#[derive(Debug)]
pub struct Compiler {
    queue: Arc<Queue>,
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
            Self { queue: Arc::default(), thread: None, stubs, config, state, here: None };
        if config.wait {
            compiler.here = Some(Mutex::new(worker));
        } else {
            let queue = Arc::clone(&compiler.queue);
            compiler.thread = Some(
                std::thread::Builder::new()
                    .name("compiler".into())
                    .spawn(move || worker.work(&queue))
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

    /// Asks for a unit.
    pub(crate) fn ask(&self, request: Request) {
        match &self.here {
            Some(worker) => lock(worker).serve(request),
            None => self.queue.push(request),
        }
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Units by the contents of their page.
struct KnownPage {
    bytes: Box<PageBytes>,
    tail: Option<u16>,
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
    fn work(&mut self, queue: &Queue) {
        loop {
            let generator = &mut self.generator;
            let rest = || {
                generator.rest();
                memory::give_back();
            };
            let Some(request) = queue.pop(rest) else { return };
            self.serve(request);
        }
    }

    fn serve(&mut self, request: Request) {
        let Request { page, tail, executed, entry, place, inbox } = request;
        let source = Source { page: &page, tail };
        if let Some(unit) = self.unit(source, &executed, entry) {
            inbox.put(Answer { place, entry, unit });
        }
    }

    fn unit(&mut self, source: Source<'_>, executed: &Executed, entry: u16) -> Option<Unit> {
        let mut hasher = DefaultHasher::new();
        (source.page, source.tail).hash(&mut hasher);
        let key = hasher.finish();
        if let Some(unit) = self.known(key, source).and_then(|known| known.units.get(&entry)) {
            return unit.clone();
        }
        let unit = self.compile(source, executed, entry);
        if self.known(key, source).is_none() {
            if self.state.pages.load(Ordering::Relaxed) >= MAX_PAGES {
                self.forget_pages();
            }
            self.state.pages.fetch_add(1, Ordering::Relaxed);
            let bytes = Box::new(*source.page);
            let known = KnownPage { bytes, tail: source.tail, units: HashMap::new() };
            self.pages.entry(key).or_default().push(known);
        }
        self.known(key, source)?.units.insert(entry, unit.clone());
        unit
    }

    fn forget_pages(&mut self) {
        self.pages.clear();
        self.state.pages.store(0, Ordering::Relaxed);
    }

    fn known(&mut self, key: u64, source: Source<'_>) -> Option<&mut KnownPage> {
        let mut alike = self.pages.get_mut(&key)?.iter_mut();
        alike.find(|known| *known.bytes == *source.page && known.tail == source.tail)
    }

    fn compile(&mut self, source: Source<'_>, executed: &Executed, entry: u16) -> Option<Unit> {
        let code = match self.generator.unit(&self.stubs, source, executed, entry.into())? {
            Ok(code) => code,
            // What the generator refuses the interpreter executes.
            Err(_) => return None,
        };
        let address = match self.arena.add(&[&code]) {
            Some(addresses) => addresses[0],
            None => {
                self.arena = Arc::new(Arena::new(ARENA).ok()?);
                self.forget_pages();
                self.arena.add(&[&code])?[0]
            }
        };
        self.state.units.fetch_add(1, Ordering::Relaxed);
        self.state.code.store(self.arena.used(), Ordering::Relaxed);
        Some(Unit { code: address, arena: Arc::clone(&self.arena) })
    }
}
