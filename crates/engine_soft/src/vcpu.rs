//! One vCPU: the outer loop around the interpreter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::riscv::RiscvVcpu;
use engine::{Bus, Exit, Vcpu, VcpuHandle};
use riscv::csr::Csrs;
use riscv::trap::{self, Privilege};
use storage_window::StorageWindow;

use crate::clock::Clock;
use crate::code::CodeCache;
use crate::cpu::{Cpu, Reservation};
use crate::handle::{
    FENCE, INTERRUPT, KICK, LINE_EXTERNAL, LOWER_SOFTWARE, RAISE_SOFTWARE, Shared,
};
use crate::interpreter::{self, Stop};
use crate::jit::Compiler;
use crate::storage::Ram;

/// Instructions between two looks at the attention word and the timer: a few
/// microseconds of guest work, and a thousandth of it lost to looking.
const BUDGET: u64 = 2048;

/// A guest that sleeps so long is idle and need not keep all it has decoded.
const IDLE: Duration = Duration::from_millis(200);

/// A remote fence of more pages than this forgets everything instead.
const MAX_FENCED_PAGES: u64 = 64;

/// Who serves what S-mode asks of its firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Firmware {
    /// The machine: `ecall` by S-mode is [`Exit::FirmwareCall`], every other
    /// trap goes to S-mode, and M-mode is never entered.
    #[default]
    Internal,
    /// The guest's own M-mode code: the hart begins there, and traps not
    /// delegated go there.
    Guest,
}

/// What all vCPUs of a machine have in common.
#[derive(Debug, Clone, Default)]
pub struct SoftConfig {
    /// Who serves S-mode's calls.
    pub firmware: Firmware,
    /// The machine's time.
    pub clock: Clock,
    /// Where a hart with [`Firmware::Guest`] begins.
    pub reset_vector: u64,
    /// Compiles hot code; without it everything is interpreted.
    pub compiler: Option<Arc<Compiler>>,
}

/// See the crate.
pub struct SoftVcpu {
    pub(crate) cpu: Box<Cpu>,
    pub(crate) code: CodeCache,
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: SoftConfig,
    hart_id: u64,
    /// `pc` and instructions retired at the last trap whose handler is what
    /// trapped.
    pub(crate) trapped_in_handler: Option<(u64, u64)>,
}

impl SoftVcpu {
    /// A hart after reset. With [`Firmware::Internal`] it does nothing useful
    /// before [`RiscvVcpu::start`].
    #[must_use]
    pub fn new(hart_id: u64, window: Arc<StorageWindow>, config: SoftConfig) -> Self {
        let mut cpu = Box::new(Cpu::new(hart_id, Ram::new(window), config.clock));
        if config.firmware == Firmware::Internal {
            cpu.csrs = Csrs::for_supervisor(hart_id);
            cpu.go((Privilege::Supervisor, 0));
        } else {
            cpu.go((Privilege::Machine, config.reset_vector & !1));
        }
        Self {
            cpu,
            code: CodeCache::new(config.compiler.clone()),
            shared: Arc::new(Shared::default()),
            config,
            hart_id,
            trapped_in_handler: None,
        }
    }

    /// Serves what others asked for; whether one asked to leave.
    pub(crate) fn serve(&mut self) -> bool {
        let attention = self.shared.take_attention();
        if attention & INTERRUPT != 0 {
            let lines = self.shared.take_lines();
            self.cpu.csrs.set_external(lines & LINE_EXTERNAL != 0);
            if lines & (RAISE_SOFTWARE | LOWER_SOFTWARE) != 0 {
                self.cpu.csrs.set_software(lines & RAISE_SOFTWARE != 0);
            }
        }
        if attention & FENCE != 0 {
            self.carry_out_fences();
        }
        attention & KICK != 0
    }

    fn carry_out_fences(&mut self) {
        let (fences, ticket) = self.shared.take_fences();
        if fences.instructions {
            self.code.fence(&mut self.cpu);
        }
        if fences.all_translations {
            self.cpu.forget_translations(None);
        }
        for (start, size) in fences.ranges {
            let pages = size.div_ceil(riscv::mmu::PAGE_SIZE);
            if pages > MAX_FENCED_PAGES {
                self.cpu.forget_translations(None);
                continue;
            }
            for page in 0..=pages {
                let address = start.wrapping_add(page * riscv::mmu::PAGE_SIZE);
                self.cpu.forget_translations(Some(address));
            }
        }
        self.code.forget_stale(&mut self.cpu);
        self.shared.fences_carried_out(ticket);
    }

    /// Looks at the timer and takes an interrupt if one is due.
    fn interrupt(&mut self) {
        if self.cpu.csrs.timer_deadline().is_some() {
            let now = self.config.clock.now();
            self.cpu.csrs.update_timer(now);
        }
        if let Some(number) = trap::next_interrupt(&self.cpu.csrs, self.cpu.privilege()) {
            self.cpu.take_interrupt(number);
        }
    }

    /// Takes the trap; whether the hart can go on.
    fn trap(&mut self) -> bool {
        let from = self.cpu.pc;
        self.cpu.take_trap();
        if self.cpu.pc != from {
            self.trapped_in_handler = None;
            return true;
        }
        let here = Some((from, self.cpu.retired));
        let stuck = self.trapped_in_handler == here;
        self.trapped_in_handler = here;
        !stuck
    }

    /// `wfi`: sleeps until an interrupt is pending or somebody calls.
    fn wait(&mut self) {
        let now = self.config.clock.now();
        self.cpu.csrs.update_timer(now);
        if self.cpu.csrs.wakes() {
            return;
        }
        let limit = self.cpu.csrs.timer_deadline().map(|ticks| self.config.clock.until(ticks));
        if !self.code.is_large() {
            return self.shared.sleep(limit);
        }
        // A guest may be woken for no reason; this one goes back to sleep.
        let slept = Instant::now();
        self.shared.sleep(Some(limit.map_or(IDLE, |limit| limit.min(IDLE))));
        if slept.elapsed() >= IDLE {
            self.code.sweep(self.cpu.retired);
        }
    }

    fn execute(&mut self, bus: &dyn Bus) -> Exit {
        let internal = self.config.firmware == Firmware::Internal;
        loop {
            if self.serve() {
                return Exit::Kicked;
            }
            self.interrupt();
            if self.code.has_answers() {
                self.code.install(&mut self.cpu);
            }
            if self.code.is_sweep_due(self.cpu.retired) {
                self.code.sweep(self.cpu.retired);
            }
            match interpreter::run(&mut self.cpu, &mut self.code, bus, BUDGET, internal) {
                Stop::Budget | Stop::Interrupt => {}
                Stop::Trap => {
                    if !self.trap() {
                        return Exit::Stuck { pc: self.cpu.pc };
                    }
                }
                Stop::Firmware => return Exit::FirmwareCall,
                Stop::Wait => self.wait(),
            }
        }
    }
}

impl Vcpu for SoftVcpu {
    fn run(&mut self, bus: &dyn Bus) -> Exit {
        self.shared.enter();
        let exit = self.execute(bus);
        self.shared.leave();
        exit
    }

    fn handle(&self) -> Arc<dyn VcpuHandle> {
        Arc::clone(&self.shared) as Arc<dyn VcpuHandle>
    }

    fn riscv(&mut self) -> &mut dyn RiscvVcpu {
        self
    }
}

impl RiscvVcpu for SoftVcpu {
    fn x(&self, index: usize) -> u64 {
        self.cpu.x[index % 32]
    }

    fn set_x(&mut self, index: usize, value: u64) {
        if !index.is_multiple_of(32) {
            self.cpu.x[index % 32] = value;
        }
    }

    fn pc(&self) -> u64 {
        self.cpu.pc
    }

    fn start(&mut self, entry: u64, opaque: u64) {
        self.cpu.x = [0; 256];
        self.cpu.f = [0; 32];
        self.cpu.csrs = Csrs::for_supervisor(self.hart_id);
        self.cpu.reservation = Reservation::NONE;
        self.trapped_in_handler = None;
        self.cpu.go((Privilege::Supervisor, entry & !1));
        self.set_x(10, self.hart_id);
        self.set_x(11, opaque);
        self.cpu.forget_translations(None);
        self.code.forget_stale(&mut self.cpu);
        self.code.fence(&mut self.cpu);
        // The line is level: whatever the controller holds is still there.
        let lines = self.shared.take_lines();
        self.cpu.csrs.set_external(lines & LINE_EXTERNAL != 0);
    }

    fn set_timer(&mut self, deadline: u64) {
        self.cpu.csrs.set_stimecmp(deadline);
        let now = self.config.clock.now();
        self.cpu.csrs.update_timer(now);
    }

    fn service_fences(&mut self) {
        self.carry_out_fences();
    }

    fn instructions_retired(&self) -> u64 {
        self.cpu.retired
    }
}
