//! A worker: one partition's process.
//!
//! [`main`] is what the program does when the host runs it again for a
//! partition. Standard input is the socket on which the worker listens for its
//! host. It maps its range, makes the machine, locks itself down, enters the
//! guest and carries out orders until the machine ends. If its host dies, it
//! goes on and waits for another.

mod agent;
mod console;
mod copy;
mod exchange;
mod files;
mod hold;
mod placement;
mod relocate;
mod resize;

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_protocol::ExecRequest;
use io_processors::{ClusterSize, DiskMode};
use machine::{DiskConfig, Machine, MachineConfig, MachineEnd};
use main_storage::{AccessKey, ExchangePlan, MovePlan, StorageRange};
use storage_window::StorageWindow;

use crate::in_full;
use crate::link::{
    self, DataDisk, Ended, Introduction, LAST_WORD, Link, MoveReport, Order, Place, Program,
    Report, ResizeReport, Side, WorkerConfig,
};
use crate::lockdown;
use agent::Agent;
use copy::Origin;
use files::UserFiles;
use relocate::{Answers, Files};

/// How long an I/O processor may take to acknowledge its address limits.
const ACKNOWLEDGE: Duration = Duration::from_secs(10);
/// How long a guest that has ended may still be read by its clients.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Whoever is the worker's host now.
struct ToHost(Mutex<Option<Arc<Link>>>);

impl ToHost {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the host; whether there is one.
    fn say(&self, report: &Report) -> bool {
        let link = self.lock().clone();
        match link.map(|link| link.send(report, &[])) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::warn!(%error, "the host cannot be told");
                false
            }
            None => false,
        }
    }

    /// Tells the host unless it is slow to listen: the guest is stopped.
    fn say_if_room(&self, report: &Report) {
        let link = self.lock().clone();
        // A report that does not fit is one the next will make up for.
        let _ = link.map(|link| link.send_now(report, &[]));
    }
}

struct Worker {
    machine: Arc<Machine>,
    window: Arc<StorageWindow>,
    agent: Arc<Agent>,
    host: Arc<ToHost>,
    /// Of the relocation under way.
    answers: Mutex<Option<Answers>>,
    name: String,
    /// Whether the guest serves commands.
    ready: Arc<AtomicBool>,
    /// Whether its range is being changed, for a host that comes meanwhile.
    changing: Mutex<bool>,
    /// It is not being changed any more.
    settled: Condvar,
    /// What a copy of a captured machine goes back to.
    origin: Option<Origin>,
    /// The files of the guest's user.
    files: Option<UserFiles>,
}

/// Runs a worker on the listening socket at standard input.
#[must_use]
pub fn main() -> ExitCode {
    // A session of its own: what ends the host's terminal does not end guests.
    if let Err(error) = rustix::process::setsid() {
        tracing::warn!(%error, "no session of its own");
    }
    let listener = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(listener) => listener,
        Err(error) => return failed(&format!("no socket at standard input: {error}")),
    };
    let link = link::adopt(listener.as_fd()).and_then(|()| link::accept(listener.as_fd()));
    let link = match link {
        Ok(link) => Arc::new(link),
        Err(error) => {
            return failed(&format!("only the host starts workers; use `berth start`: {error}"));
        }
    };
    let order = link.receive::<Order>();
    let Ok(Some((Order::Start(config), fds))) = order else {
        return failed("the host gave no order to start");
    };
    let host = Arc::new(ToHost(Mutex::new(Some(Arc::clone(&link)))));
    match begin(&config, fds, &host) {
        Ok(worker) => worker.serve(listener, link),
        Err(reason) => {
            host.say(&Report::Ended(Ended::Failed { reason }));
            ExitCode::FAILURE
        }
    }
}

fn failed(why: &str) -> ExitCode {
    tracing::error!("{why}");
    ExitCode::FAILURE
}

/// From the order to the guest's first instruction.
fn begin(
    config: &WorkerConfig,
    fds: Vec<OwnedFd>,
    host: &Arc<ToHost>,
) -> Result<Arc<Worker>, String> {
    run_on(&config.run_on)?;
    let Storage { file, window, origin } = map(config, fds)?;
    let machine = match &origin {
        None => Machine::new(&machine_config(config), &window).map_err(|error| in_full(&error))?,
        // Nothing of a parked machine looks at the storage.
        Some(origin) => std::thread::scope(|scope| {
            let fill = || origin.fill(file.as_fd(), &window);
            let filled = std::thread::Builder::new().spawn_scoped(scope, fill);
            let filled = filled.map_err(|error| format!("no thread to be had: {error}"))?;
            let made = make_parked(config, &window, origin);
            filled.join().unwrap_or_else(|why| resume_unwind(why)).and(made)
        })?,
    };
    drop(file);
    let machine = Arc::new(machine);
    lockdown::lock_down().map_err(|error| error.to_string())?;
    let to_host = Arc::clone(host);
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = Arc::clone(&ready);
    let on_ready = move |ready: Option<agent_protocol::Ready>| {
        // Before it is said: a host that comes between is told by `Hello`.
        is_ready.store(ready.is_some(), Ordering::Release);
        to_host.say(&match ready {
            Some(ready) => Report::Ready { uptime_ns: ready.uptime_ns, kernel: ready.kernel },
            None => Report::NotReady,
        });
    };
    let to_host = Arc::clone(host);
    let tell = move |report: &Report| to_host.say(report);
    let agent = Agent::new(machine.agent().clone(), Box::new(on_ready), Box::new(tell));
    let host = Arc::clone(host);
    let (answers, changing, name) = (Mutex::default(), Mutex::default(), config.name.clone());
    let settled = Condvar::new();
    if let Some(origin) = &origin {
        agent.resume_from(origin.agent());
    }
    let files = machine.files().map(UserFiles::of).transpose()?;
    let worker = Worker {
        machine,
        window,
        agent,
        host,
        answers,
        name,
        ready,
        changing,
        settled,
        origin,
        files,
    };
    let worker = Arc::new(worker);
    let agent = Arc::clone(&worker.agent);
    spawn("agent", move || agent.run())?;
    let ending = Arc::clone(&worker);
    spawn("end", move || ending.end_with_machine())?;
    // A copy is parked: it is entered when it is woken.
    worker.machine.start();
    if worker.origin.is_some() {
        worker.await_agent()?;
    }
    worker.host.say(&Report::Started);
    Ok(worker)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread
        .map(|_| ())
        .map_err(|error| format!("no thread to be had: {error}; raise the limit of processes"))
}

/// Everything but pinned vCPUs keeps off host CPUs that are somebody else's.
fn run_on(cpus: &[usize]) -> Result<(), String> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = rustix::thread::CpuSet::new();
    cpus.iter().filter(|cpu| **cpu < 1024).for_each(|cpu| set.set(*cpu));
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|error| format!("the host CPUs {cpus:?} cannot be used: {error}"))
}

/// Where the guest's storage is, and what it is a copy of.
struct Storage {
    /// The file of main storage: closed once the copy is made. Only the mapping of its
    /// own range stays.
    file: OwnedFd,
    window: Arc<StorageWindow>,
    origin: Option<Origin>,
}

fn map(config: &WorkerConfig, fds: Vec<OwnedFd>) -> Result<Storage, String> {
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(|| "the host passed too few files".to_owned());
    let (file, keys) = (next()?, next()?);
    let range = StorageRange::try_from(config.range).map_err(|error| error.to_string())?;
    let base = machine::memory_map::STORAGE_BASE;
    let window = StorageWindow::map(file.as_fd(), keys.as_fd(), range, base, config.reach)
        .map_err(|error| in_full(&error))?;
    let origin = config.copy.then(|| Origin::read(next()?, next()?, range.size())).transpose()?;
    Ok(Storage { file, window, origin })
}

/// A machine that goes on from where its origin was captured, when it is woken.
fn make_parked(
    config: &WorkerConfig,
    window: &Arc<StorageWindow>,
    origin: &Origin,
) -> Result<Machine, String> {
    let config = machine_config(config);
    let machine = Machine::without_guest(&config, window).map_err(|error| in_full(&error))?;
    let processors = machine.io_processors();
    processors.iter().for_each(|processor| processor.quiesce());
    origin.restore(&machine)?;
    processors.iter().for_each(|processor| processor.resume());
    Ok(machine)
}

fn machine_config(config: &WorkerConfig) -> MachineConfig {
    let root = DiskConfig { path: config.root.clone(), mode: DiskMode::ReadOnly };
    let data = config.data.clone().map(|DataDisk { template, captured, overlay }| DiskConfig {
        path: template,
        mode: match captured {
            Some(captured) => DiskMode::Copy { captured, overlay },
            None => DiskMode::Overlay { overlay, cluster: ClusterSize::default() },
        },
    });
    MachineConfig {
        name: config.name.clone(),
        vcpus: config.vcpus,
        host_cpus: config.pin.clone(),
        compile: true,
        kernel: config.kernel.clone(),
        initrd: config.initrd.clone(),
        command_line: config.command_line.clone(),
        disks: std::iter::once(root).chain(data).collect(),
        files: config.files,
        io_keys: config
            .io_keys
            .iter()
            .filter_map(|(name, key)| Some((name.clone(), AccessKey::new(*key)?)))
            .collect(),
    }
}

impl Worker {
    /// Carries out the orders of one host after another. The process ends with
    /// the machine.
    fn serve(self: &Arc<Self>, listener: OwnedFd, first: Arc<Link>) -> ExitCode {
        let mut link = first;
        loop {
            while let Ok(Some((order, fds))) = link.receive::<Order>() {
                self.carry_out(order, fds);
            }
            *self.host.lock() = None;
            self.agent.host_gone();
            // Whoever waits for an answer of that host gets none.
            *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = None;
            link = match link::accept(listener.as_fd()) {
                Ok(link) => Arc::new(link),
                Err(error) => return failed(&format!("cannot wait for a host: {error}")),
            };
            *self.host.lock() = Some(Arc::clone(&link));
        }
    }

    fn carry_out(self: &Arc<Self>, order: Order, fds: Vec<OwnedFd>) {
        match order {
            Order::Start(_) => tracing::warn!("the guest was started already"),
            Order::Hello => self.introduce_itself(),
            Order::Exec { argv, env, cwd } => {
                let Some(client) = client(fds) else { return };
                self.agent.exec(exec_request(Program { argv, env, cwd }), client);
            }
            Order::Capture { wait_ms } => {
                let limit = Duration::from_millis(wait_ms);
                self.report_later("capture", move |worker| match worker.capture(limit, fds) {
                    Ok(captured) => Report::Captured(captured),
                    Err(reason) => Report::NotCaptured { reason },
                });
            }
            Order::Files => {
                if let Some((files, session)) = self.files.as_ref().zip(client(fds)) {
                    files.connect(session);
                }
            }
            Order::Database => self.agent.use_database(fds.into_iter().next()),
            Order::Wake => {
                if let Err(reason) = self.wake() {
                    tracing::error!(reason, "cannot be woken");
                }
            }
            Order::Reset { wait_ms } => {
                let limit = Duration::from_millis(wait_ms);
                self.report_later("reset", move |worker| match worker.put_back(limit) {
                    Ok(done) => Report::Parked(done),
                    Err(reason) => Report::Broken { reason },
                });
            }
            Order::StartService { tpn, program, ready } => {
                self.agent.start_service(&tpn, exec_request(program), ready);
            }
            Order::Converse { conversation, tpn, program } => {
                let Some(client) = client(fds) else { return };
                self.agent.converse(conversation, &tpn, program.map(exec_request), client);
            }
            Order::Abend { conversation } => self.agent.abend(conversation),
            Order::Renew(renewal) => self.agent.renew(*renewal),
            Order::MetadataReply { id, status, body } => {
                self.agent.reply(id, status, body.into_bytes());
            }
            Order::Console => {
                if let Some(client) = client(fds) {
                    console::attach(self.machine.console(), client);
                }
            }
            Order::Move { from, origin, mode, wait_ms } => {
                let limits = relocation::Limits {
                    quiesce: Duration::from_millis(wait_ms),
                    acknowledge: ACKNOWLEDGE,
                };
                let to = (origin, mode.into());
                if let Err(reason) = self.relocate(from.try_into().ok(), to, limits, fds) {
                    self.host.say(&Report::Moved(MoveReport::stayed(reason)));
                }
            }
            Order::Exchange { a, b, side, wait_ms } => {
                let limit = Duration::from_millis(wait_ms);
                if let Err(reason) = self.exchange((a, b), side, limit, fds) {
                    self.host.say(&Report::Moved(MoveReport::stayed(reason)));
                }
            }
            Order::Resize { size, wait_ms } => {
                let limit = Duration::from_millis(wait_ms);
                if let Err(reason) = self.resize(size, limit, fds) {
                    let (size, busy_devices) = (self.window.size(), vec![]);
                    let stayed = ResizeReport::Stayed { size, reason, busy_devices };
                    self.host.say(&Report::Resized(stayed));
                }
            }
            Order::Answer { refused } => {
                let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
                // An answer that nobody waits for any more.
                let _ = answers.as_ref().map(|answers| answers.send(refused));
            }
            Order::PowerOff { wait_ms } => {
                let worker = Arc::clone(self);
                let stop = move || {
                    if wait_ms > 0 && worker.agent.shut_down() {
                        std::thread::sleep(Duration::from_millis(wait_ms));
                    }
                    worker.machine.shut_down();
                };
                if spawn("power-off", stop).is_err() {
                    self.machine.shut_down();
                }
            }
        }
    }

    /// Tells a host that came later who and where this worker is.
    fn introduce_itself(&self) {
        // Held while it is said, so that a change's end comes after it.
        let changing = self.changing();
        let range = Place { origin: self.window.origin(), size: self.window.size() };
        self.host.say(&Report::Hello(Introduction {
            name: self.name.clone(),
            range,
            ready: self.ready.load(Ordering::Acquire),
            changing: *changing,
        }));
    }

    /// Ends a change.
    fn settle(&self) {
        *self.changing() = false;
        self.settled.notify_all();
    }

    fn changing(&self) -> MutexGuard<'_, bool> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn relocate(
        self: &Arc<Self>,
        from: Option<StorageRange>,
        (origin, mode): (u64, relocation::Mode),
        limits: relocation::Limits,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let from = from.ok_or("the host named no range")?;
        let [storage, keys] =
            <[OwnedFd; 2]>::try_from(fds).map_err(|_| "the host passed no main storage")?;
        let files = Files { storage, keys };
        let (answers, answered) = channel();
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = Some(answers);
        let (machine, window) = (Arc::clone(&self.machine), Arc::clone(&self.window));
        let host = Arc::clone(&self.host);
        let driver = relocate::Worker::new(machine, window, files, host, from, answered);
        self.change("move", move || Report::Moved(driver.run(origin, mode, limits)))
    }

    /// Changes this partition's range on a thread of its own, and says how that
    /// ended.
    fn change(
        self: &Arc<Self>,
        name: &str,
        work: impl FnOnce() -> Report + Send + 'static,
    ) -> Result<(), String> {
        if std::mem::replace(&mut *self.changing(), true) {
            return Err("it is being put back or changed just now; try again".to_owned());
        }
        let worker = Arc::clone(self);
        let spawned = spawn(name, move || {
            let report = work();
            worker.settle();
            worker.host.say(&report);
            if let Report::Moved(MoveReport::Lost { .. }) = report {
                // The storage is gone: nothing may enter the guest again.
                worker.machine.shut_down();
            }
        });
        if spawned.is_err() {
            self.settle();
        }
        spawned
    }

    fn exchange(
        self: &Arc<Self>,
        (a, b): ([Place; 2], [Place; 2]),
        side: Side,
        limit: Duration,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let [storage, keys, record, peer] =
            <[OwnedFd; 4]>::try_from(fds).map_err(|_| "the host passed too few files")?;
        let plan = exchange_plan(a, b)?;
        let party = exchange::Party {
            machine: Arc::clone(&self.machine),
            window: Arc::clone(&self.window),
            files: exchange::Files { storage, keys, record },
            peer: Link::from(peer),
            plan,
            side,
            limit,
        };
        self.change("exchange", move || Report::Moved(party.run()))
    }

    fn resize(
        self: &Arc<Self>,
        size: u64,
        limit: Duration,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let files = <[OwnedFd; 2]>::try_from(fds).map_err(|_| "the host passed no main storage")?;
        let (machine, window) = (Arc::clone(&self.machine), Arc::clone(&self.window));
        let resize = resize::Resize { machine, window, files, limit };
        self.change("resize", move || Report::Resized(resize.run(size)))
    }

    /// Waits for the machine's end, tells the host and ends the process.
    fn end_with_machine(&self) {
        let end = match self.machine.wait() {
            MachineEnd::PowerOff => Ended::PowerOff,
            MachineEnd::Reboot => Ended::Reboot,
            MachineEnd::ShutDown => Ended::ShutDown,
            MachineEnd::Failed { reason } => Ended::Failed { reason },
        };
        let tail = self.machine.console().tail();
        // The guest's last words, for whoever looks for the reason.
        let _ = std::io::stderr().write_all(&tail);
        // A panic reaches us as the reset that the kernel asks for after it.
        let end = match (console::panic_text(&tail), end) {
            (Some(reason), Ended::PowerOff | Ended::Reboot) => Ended::Failed { reason },
            (_, end) => end,
        };
        // And the worker's, for a host that comes when it is gone.
        if let Ok(text) = serde_json::to_string(&end) {
            let _ = writeln!(std::io::stderr(), "\n{LAST_WORD}{text}");
        }
        self.host.say(&Report::Ended(end));
        self.agent.hang_up();
        std::thread::sleep(LAST_WORDS);
        std::process::exit(0);
    }
}

fn exchange_plan(a: [Place; 2], b: [Place; 2]) -> Result<ExchangePlan, String> {
    let side = |[from, to]: [Place; 2]| {
        let from = StorageRange::try_from(from).map_err(|error| error.to_string())?;
        MovePlan::new(from, to.origin).map_err(|error| error.to_string())
    };
    ExchangePlan::new(side(a)?, side(b)?).map_err(|error| error.to_string())
}

fn exec_request(program: Program) -> ExecRequest {
    let bytes = String::into_bytes;
    let env = program.env.into_iter().map(|(name, value)| (bytes(name), bytes(value)));
    ExecRequest {
        argv: program.argv.into_iter().map(bytes).collect(),
        env: env.collect(),
        cwd: bytes(program.cwd),
    }
}

/// The client's connection that came with an order.
fn client(fds: Vec<OwnedFd>) -> Option<UnixStream> {
    let client = fds.into_iter().next().map(UnixStream::from);
    if client.is_none() {
        tracing::warn!("an order for a client came without the client's connection");
    }
    client
}
