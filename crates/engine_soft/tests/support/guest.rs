//! One hart in S-mode, told apart from its machine by calls of the firmware.
#![allow(dead_code, clippy::unwrap_used, reason = "no test uses all of it; tests may give up")]

use std::sync::Arc;
use std::time::Duration;

use engine::{Exit, Vcpu, VcpuHandle};
use engine_soft::SoftVcpu;
use storage_window::StorageWindow;

use super::support::asm::*;
use super::support::{BASE, NoDevices, get, put, soft_config, window};

/// Where the trap handler is that [`Guest::start`] installs.
pub(crate) const HANDLER: u64 = BASE + 0x2000;
/// Pages that no support code uses.
pub(crate) const DATA: u64 = BASE + 0x10_0000;
/// The root page table of [`Guest::map`].
const ROOT: u64 = BASE + 0x18_0000;
/// The middle and last tables for virtual addresses from [`VIRTUAL`].
const MIDDLE: u64 = ROOT + 0x1000;
const LAST: u64 = ROOT + 0x2000;
/// First virtual address of the 512 pages that [`Guest::map`] maps.
pub(crate) const VIRTUAL: u64 = 0x4000_0000;

/// Bits of a page table entry.
pub(crate) mod pte {
    pub(crate) const V: u64 = 1;
    pub(crate) const R: u64 = 2;
    pub(crate) const W: u64 = 4;
    pub(crate) const X: u64 = 8;
    pub(crate) const U: u64 = 16;
    pub(crate) const A: u64 = 64;
    pub(crate) const D: u64 = 128;
}

/// CSR numbers.
pub(crate) mod csr {
    pub(crate) const SSTATUS: u16 = 0x100;
    pub(crate) const SIE: u16 = 0x104;
    pub(crate) const STVEC: u16 = 0x105;
    pub(crate) const SEPC: u16 = 0x141;
    pub(crate) const SCAUSE: u16 = 0x142;
    pub(crate) const STVAL: u16 = 0x143;
    pub(crate) const SIP: u16 = 0x144;
    pub(crate) const STIMECMP: u16 = 0x14D;
    pub(crate) const SATP: u16 = 0x180;
    pub(crate) const TIME: u16 = 0xC01;
}

/// What the handler found when a guest trapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trapped {
    pub(crate) cause: u64,
    pub(crate) pc: u64,
    pub(crate) value: u64,
}

/// The cause of an interrupt.
pub(crate) const fn interrupt(number: u64) -> u64 {
    1 << 63 | number
}

pub(crate) struct Guest {
    pub(crate) window: Arc<StorageWindow>,
    pub(crate) vcpu: SoftVcpu,
}

impl Guest {
    /// A hart about to execute `program` at [`BASE`], behind code that
    /// installs the trap handler; where `program` begins is returned too.
    pub(crate) fn start(program: &[u32]) -> (Self, u64) {
        let window = window(2 << 20);
        let guest = Self::on(window, 0, program);
        (guest, BASE + 4 * prelude().len() as u64)
    }

    /// The same on a window that others use too.
    pub(crate) fn on(window: Arc<StorageWindow>, hart_id: u64, program: &[u32]) -> Self {
        let code = BASE + 0x4000 * hart_id;
        let handler = [
            csrrs(A0, csr::SCAUSE, ZERO),
            csrrs(A1, csr::SEPC, ZERO),
            csrrs(A2, csr::STVAL, ZERO),
            ecall(),
        ];
        put(&window, HANDLER, &bytes(&handler));
        put(&window, code, &bytes(&[prelude().as_slice(), program].concat()));
        let mut vcpu = SoftVcpu::new(hart_id, Arc::clone(&window), soft_config());
        vcpu.riscv().start(code, 0);
        Self { window, vcpu }
    }

    /// Writes instruction words.
    pub(crate) fn words(&self, address: u64, words: &[u32]) {
        put(&self.window, address, &bytes(words));
    }

    pub(crate) fn store(&self, address: u64, value: u64) {
        put(&self.window, address, &value.to_le_bytes());
    }

    pub(crate) fn load(&self, address: u64) -> u64 {
        get(&self.window, address)
    }

    /// Lets page `index` of [`VIRTUAL`] be the page at `physical`.
    pub(crate) fn map(&self, index: u64, physical: u64, rights: u64) {
        let table = |at: u64| at >> 12 << 10 | pte::V;
        let identity = table(BASE) | pte::R | pte::W | pte::X | pte::A | pte::D;
        self.store(ROOT + 8, table(MIDDLE));
        self.store(ROOT + 16, identity);
        self.store(MIDDLE, table(LAST));
        self.store(LAST + 8 * index, table(physical) | rights);
    }

    /// The table entry that [`Guest::map`] made.
    pub(crate) fn mapping(&self, index: u64) -> u64 {
        self.load(LAST + 8 * index)
    }

    /// Instructions that turn on Sv39 with the tables of [`Guest::map`];
    /// [`BASE`] stays where it is.
    pub(crate) fn paging() -> Vec<u32> {
        let mut words = li(T0, 8 << 60 | ROOT >> 12);
        words.extend([csrrw(ZERO, csr::SATP, T0), sfence_vma(ZERO, ZERO)]);
        words
    }

    /// Runs until the guest calls its firmware.
    pub(crate) fn run(&mut self) {
        // A guest that hangs is a failed test, not a hung one.
        let handle = self.vcpu.handle();
        let (done, finished) = std::sync::mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            if finished.recv_timeout(Duration::from_secs(20)).is_err() {
                handle.kick();
            }
        });
        let exit = self.vcpu.run(&NoDevices);
        let _ = done.send(());
        watch.join().unwrap();
        assert_eq!(exit, Exit::FirmwareCall, "at {:#x}", self.vcpu.riscv().pc());
    }

    /// Runs until the guest traps into its handler.
    pub(crate) fn run_to_trap(&mut self) -> Trapped {
        self.run();
        assert_eq!(self.vcpu.riscv().pc(), HANDLER + 16, "no trap was taken");
        Trapped { cause: self.x(A0), pc: self.x(A1), value: self.x(A2) }
    }

    pub(crate) fn x(&mut self, register: u32) -> u64 {
        self.vcpu.riscv().x(register as usize)
    }

    pub(crate) fn handle(&self) -> Arc<dyn VcpuHandle> {
        self.vcpu.handle()
    }
}

fn prelude() -> Vec<u32> {
    let mut words = li(T0, HANDLER);
    words.push(csrrw(ZERO, csr::STVEC, T0));
    words
}

/// Joins pieces of a program.
pub(crate) fn program(pieces: &[&[u32]]) -> Vec<u32> {
    pieces.concat()
}
