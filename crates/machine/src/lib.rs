//! One virtual machine: storage, vCPUs and I/O processors put together.
//!
//! A [`Machine`] is built on a partition's [`StorageWindow`] from a
//! [`MachineConfig`]: it loads the guest's kernel, starts one thread per vCPU
//! and one per I/O processor, and is the guest's firmware (`sbi`). Whoever
//! relocates the partition drives it through [`Machine::stop_vcpus`],
//! [`Machine::io_processors`] and [`Machine::resume_vcpus`]; the machine knows
//! nothing of main storage.
//!
//! The machine is a riscv64 one: where its parts are stands in
//! [`memory_map`], and the guest reads it from the device tree.

mod boot;
mod bus;
mod config;
mod device_tree;
pub mod memory_map;
mod plic;
mod sbi;
mod state;
mod storage_keys;
mod vcpu_control;
mod vcpu_thread;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use engine::{Exit, Fence, Vcpu};
use engine_soft::{Clock, Compiler, CompilerConfig, SoftConfig, SoftVcpu};
use io_processors::{
    AgentChannel, Blk, ChannelEnd, Console, ConsoleEnd, DiskControl, Fs, FsEnd, GuestStorage,
    IoProcessor, Mem, MemEnd, OpenDiskError, Processor, Rng, StartError, VirtioDevice, open_disk,
};
use storage_window::StorageWindow;

pub use boot::BootError;
pub use config::{DiskConfig, MAX_DISKS, MAX_VCPUS, MachineConfig};
pub use state::{MachineState, StateError};

use bus::Bus;
use plic::Plic;
use sbi::{After, Firmware};
use storage_keys::{KeyUnit, StorageKeys};
use vcpu_control::{HartStart, Pass, VcpuControl};
use vcpu_thread::VcpuThread;

/// By which name a guest mounts its user's files.
const FILES_TAG: &str = "berth";

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineEnd {
    /// The guest powered itself off.
    PowerOff,
    /// The guest asked to be started anew.
    Reboot,
    /// [`Machine::shut_down`] was called.
    ShutDown,
    /// The guest cannot go on.
    Failed {
        /// In words for the operator.
        reason: String,
    },
}

/// Why a machine could not be made. The operator is to blame, or the host.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A number outside its range.
    #[error(
        "a machine has 1 to {MAX_VCPUS} vCPUs and at most {MAX_DISKS} disks, not {vcpus} and {disks}"
    )]
    Parts {
        /// vCPUs asked for.
        vcpus: u8,
        /// Disks asked for.
        disks: usize,
    },
    /// An access key for an I/O processor that it does not have.
    #[error("the machine has no I/O processor \"{name}\" to give an access key; it has {there}")]
    UnknownIoProcessor {
        /// The name.
        name: String,
        /// The names there are.
        there: String,
    },
    /// The guest could not be put into storage.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A disk could not be opened.
    #[error(transparent)]
    Disk(#[from] OpenDiskError),
    /// An I/O processor could not be started.
    #[error(transparent)]
    IoProcessor(#[from] StartError),
    /// The host gave no random numbers or no thread.
    #[error("the host refused what the machine needs: {what}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// One virtual machine. Dropping it ends it.
pub struct Machine {
    control: Arc<VcpuControl>,
    bus: Arc<Bus>,
    console: ConsoleEnd,
    agent: ChannelEnd,
    memory: Option<MemEnd>,
    files: Option<FsEnd>,
    disks: Vec<DiskControl>,
    threads: Mutex<Vec<VcpuThread>>,
}

impl Machine {
    /// Builds the machine on `window` and loads its guest. Nothing runs until
    /// [`Machine::start`].
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn new(config: &MachineConfig, window: &Arc<StorageWindow>) -> Result<Self, MachineError> {
        let machine = Self::without_guest(config, window)?;
        let boot = load_guest(config, window, machine.io_processors().len())?;
        // Every hart is stopped at first, so this start cannot be refused.
        let _ = machine.control.start_hart(0, boot);
        Ok(machine)
    }

    /// Builds the machine on `window` with nothing to run: it is for
    /// [`Machine::restore`], with which it must agree in vCPUs and devices.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn without_guest(
        config: &MachineConfig,
        window: &Arc<StorageWindow>,
    ) -> Result<Self, MachineError> {
        let parts = MachineError::Parts { vcpus: config.vcpus, disks: config.disks.len() };
        if !(1..=MAX_VCPUS).contains(&config.vcpus) || config.disks.len() > MAX_DISKS {
            return Err(parts);
        }
        let plic = Plic::new(config.vcpus.into());
        let mut devices = Devices { window, plic: &plic, processors: Vec::new() };
        let (console, console_end) = Console::new();
        let (agent, agent_end) = AgentChannel::new();
        devices.add("console".into(), console)?;
        devices.add("agent".into(), agent)?;
        let mut disks = Vec::new();
        for (index, disk) in config.disks.iter().enumerate() {
            let backend = open_disk(&disk.path, &disk.mode)?;
            disks.extend(backend.control());
            devices.add(format!("blk{index}"), Blk::new(backend, &format!("berth-{index}")))?;
        }
        devices.add("rng".into(), Rng)?;
        let mut memory = None;
        if let Some((device, end)) = Mem::new(window.layout()) {
            devices.add("mem".into(), device)?;
            memory = Some(end);
        }
        let mut files = None;
        if config.files {
            let (device, end) = Fs::new(FILES_TAG);
            devices.add("files".into(), device)?;
            files = Some(end);
        }
        let io_processors = devices.processors;
        set_access_keys(config, &io_processors)?;

        // One clock, so that every hart reads the same time.
        let soft = SoftConfig {
            firmware: engine_soft::Firmware::Internal,
            clock: Clock::new(),
            reset_vector: 0,
            compiler: if config.compile { start_compiler() } else { None },
        };
        let vcpus: Vec<SoftVcpu> = (0..config.vcpus)
            .map(|hart| SoftVcpu::new(hart.into(), Arc::clone(window), soft.clone()))
            .collect();
        let control = Arc::new(VcpuControl::new(vcpus.iter().map(Vcpu::handle).collect()));
        plic.connect(control.handles().to_vec());
        let keys = KeyUnit::new(StorageKeys::new(Arc::clone(window)), control.handles().to_vec());
        let bus = Arc::new(Bus { plic, io_processors, keys });
        let machine = Self {
            control,
            bus,
            console: console_end.clone(),
            agent: agent_end,
            memory,
            files,
            disks,
            threads: Mutex::default(),
        };
        machine.start_threads(config, window, vcpus, console_end)?;
        Ok(machine)
    }

    fn start_threads(
        &self,
        config: &MachineConfig,
        window: &Arc<StorageWindow>,
        vcpus: Vec<SoftVcpu>,
        console: ConsoleEnd,
    ) -> Result<(), MachineError> {
        let firmware = Arc::new(Firmware {
            control: Arc::clone(&self.control),
            window: Arc::clone(window),
            keys: StorageKeys::new(Arc::clone(window)),
            console: Box::new(move |bytes| console.print(bytes)),
        });
        for (hart, vcpu) in vcpus.into_iter().enumerate() {
            let runner = Runner {
                hart,
                vcpu,
                host_cpu: config
                    .host_cpus
                    .as_ref()
                    .and_then(|cpus| cpus.get(hart % cpus.len().max(1)).copied()),
                control: Arc::clone(&self.control),
                bus: Arc::clone(&self.bus),
                firmware: Arc::clone(&firmware),
            };
            let name = format!("vcpu{hart}-{}", config.name);
            let thread = VcpuThread::start(name, move || runner.run())
                .map_err(|source| MachineError::Host { what: "a thread for a vCPU", source })?;
            self.lock_threads().push(thread);
        }
        Ok(())
    }

    fn lock_threads(&self) -> MutexGuard<'_, Vec<VcpuThread>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host's CPUs that vCPUs run on just now. Those that sleep are on none.
    #[must_use]
    pub fn host_cpus_in_use(&self) -> Vec<usize> {
        self.lock_threads().iter().filter_map(VcpuThread::host_cpu).collect()
    }

    /// Lets the vCPUs enter the guest for the first time.
    pub fn start(&self) {
        self.control.resume();
    }

    /// Stops every vCPU; whether all of them are outside the guest by
    /// `deadline`. If not, [`Machine::resume_vcpus`] takes the stop back.
    pub fn stop_vcpus(&self, deadline: Instant) -> bool {
        self.control.stop(deadline)
    }

    /// Lets the vCPUs go on where they stopped.
    pub fn resume_vcpus(&self) {
        self.control.resume();
    }

    /// Has every vCPU forget where it found storage before its next guest
    /// instruction. Called while the vCPUs are stopped, after the window has
    /// shrunk and before [`Machine::resume_vcpus`].
    pub fn forget_translations(&self) {
        for handle in self.control.handles() {
            handle.request_fence(Fence::Translations { start: 0, size: u64::MAX });
        }
    }

    /// The I/O processors, in order of their slots.
    #[must_use]
    pub fn io_processors(&self) -> &[Arc<dyn IoProcessor>] {
        &self.bus.io_processors
    }

    /// The host's end of the guest's console.
    #[must_use]
    pub fn console(&self) -> &ConsoleEnd {
        &self.console
    }

    /// The host's end of the channel to the guest agent.
    #[must_use]
    pub fn agent(&self) -> &ChannelEnd {
        &self.agent
    }

    /// The host's end of the device by which the guest gets storage behind what
    /// it booted in, and gives it back. `None` if the window cannot grow.
    ///
    /// To expand: grow the window, have every I/O processor acknowledge the new
    /// address limits, then [`MemEnd::request`]. To shrink: request less, wait;
    /// then, with the vCPUs stopped and the I/O processors idle, look again how
    /// much must stay ([`io_processors::MemState::end`]), shrink the window to
    /// that, [`Machine::forget_translations`], and set the address limits.
    #[must_use]
    pub fn memory(&self) -> Option<&MemEnd> {
        self.memory.as_ref()
    }

    /// The host's end of the device for the files of the guest's user. `None` if the
    /// machine has none.
    #[must_use]
    pub fn files(&self) -> Option<&FsEnd> {
        self.files.as_ref()
    }

    /// Those of its disks that can be captured or put back, in their order. Only
    /// while every I/O processor is idle.
    #[must_use]
    pub fn disks(&self) -> &[DiskControl] {
        &self.disks
    }

    /// Waits until the machine has ended, and says how.
    #[must_use]
    pub fn wait(&self) -> MachineEnd {
        self.control.wait_for_end()
    }

    /// Ends the machine from outside, as pulling its plug would.
    pub fn shut_down(&self) {
        self.control.end(MachineEnd::ShutDown);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.shut_down();
        let threads = std::mem::take(&mut *self.lock_threads());
        for thread in threads {
            thread.join();
        }
    }
}

/// Fills the virtio slots in order.
struct Devices<'a> {
    window: &'a Arc<StorageWindow>,
    plic: &'a Arc<Plic>,
    processors: Vec<Arc<dyn IoProcessor>>,
}

impl Devices<'_> {
    fn add(&mut self, name: String, device: impl VirtioDevice + 'static) -> Result<(), StartError> {
        let line = self.plic.line(memory_map::interrupt_of_slot(self.processors.len()));
        let storage: Arc<dyn GuestStorage> = Arc::clone(self.window) as _;
        self.processors.push(Arc::new(Processor::start(name, device, storage, Arc::new(line))?));
        Ok(())
    }
}

fn set_access_keys(
    config: &MachineConfig,
    io_processors: &[Arc<dyn IoProcessor>],
) -> Result<(), MachineError> {
    for (name, key) in &config.io_keys {
        let names = || io_processors.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ");
        let processor = io_processors.iter().find(|one| one.name() == name);
        let unknown = || MachineError::UnknownIoProcessor { name: name.clone(), there: names() };
        processor.ok_or_else(unknown)?.set_access_key(*key);
    }
    Ok(())
}

/// Loads the guest; returns where its first hart starts.
fn load_guest(
    config: &MachineConfig,
    window: &StorageWindow,
    io_processors: usize,
) -> Result<HartStart, MachineError> {
    let memory = window.memory();
    let storage = window.layout().boot_size();
    let layout = boot::load(memory, storage, &config.kernel, config.initrd.as_deref())?;
    let mut rng_seed = [0; 64];
    rustix::rand::getrandom(&mut rng_seed, rustix::rand::GetRandomFlags::empty())
        .map_err(|source| MachineError::Host { what: "random numbers", source: source.into() })?;
    let tree = device_tree::write(&device_tree::Description {
        vcpus: config.vcpus.into(),
        storage,
        command_line: &config.command_line,
        initrd: layout.initrd,
        io_processors,
        rng_seed: &rng_seed,
    })
    .map_err(BootError::DeviceTree)?;
    boot::write_tree(memory, &layout, &tree)?;
    Ok(HartStart { entry: layout.kernel, opaque: layout.device_tree })
}

/// A compiler for the guest's hot code. Without one the guest is slower and
/// otherwise the same.
fn start_compiler() -> Option<Arc<Compiler>> {
    Compiler::start(CompilerConfig::default())
        .inspect_err(|error| tracing::warn!(%error, "guest code will only be interpreted"))
        .ok()
}

/// What a vCPU's thread owns.
struct Runner {
    hart: usize,
    vcpu: SoftVcpu,
    host_cpu: Option<usize>,
    control: Arc<VcpuControl>,
    bus: Arc<Bus>,
    firmware: Arc<Firmware>,
}

impl Runner {
    fn run(mut self) {
        if let Some(cpu) = self.host_cpu {
            self.pin(cpu);
        }
        loop {
            match self.control.enter(self.hart) {
                Pass::End => return,
                Pass::Errand(errand) => {
                    (errand.0)(&mut self.vcpu);
                    continue;
                }
                Pass::Start(HartStart { entry, opaque }) => self.vcpu.riscv().start(entry, opaque),
                Pass::Go => {}
            }
            match self.vcpu.run(&*self.bus) {
                Exit::Kicked => {}
                // Still inside: the call may read guest storage.
                Exit::FirmwareCall => match self.firmware.call(self.hart, self.vcpu.riscv()) {
                    After::Continue | After::HartStopped => {}
                    After::End(why) => self.control.end(why),
                },
                Exit::Stuck { pc } => self.control.end(MachineEnd::Failed {
                    reason: format!(
                        "vCPU {} cannot go on at {pc:#x}: its trap handler traps",
                        self.hart
                    ),
                }),
            }
            self.control.leave(self.hart);
        }
    }

    /// A vCPU that cannot be pinned runs all the same, only elsewhere.
    fn pin(&self, cpu: usize) {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
            tracing::warn!(vcpu = self.hart, cpu, %error, "cannot pin the vCPU to its host CPU");
        }
    }
}
