//! A vCPU's state, to be put into another vCPU or back into this one.

use riscv::csr::Csrs;
use riscv::trap::Privilege;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::cpu::Reservation;
use crate::vcpu::SoftVcpu;

/// Everything architectural of a hart but its time: what it needs to go on at
/// its next instruction. A reservation is not kept: `sc` may always fail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SoftState {
    x: [u64; 32],
    f: [u64; 32],
    pc: u64,
    privilege: Privilege,
    csrs: Csrs,
    retired: u64,
}

impl SoftVcpu {
    /// The state of the vCPU, which is outside the guest. What others asked of
    /// it is served first.
    pub fn save(&mut self) -> SoftState {
        // A kick has done what it is for: the vCPU is outside.
        let _ = self.serve();
        let mut x = [0; 32];
        x.copy_from_slice(&self.cpu.x[..32]);
        let cpu = &self.cpu;
        let (f, pc, privilege, csrs) = (cpu.f, cpu.pc, cpu.privilege(), cpu.csrs.clone());
        SoftState { x, f, pc, privilege, csrs, retired: cpu.retired }
    }

    /// Makes this vCPU, which is outside the guest, one that goes on from
    /// `state`. Its storage may be another than before. Nothing is left of what
    /// it did or was asked; the interrupt controller says again how its line
    /// stands.
    pub fn restore(&mut self, state: &SoftState, clock: Clock) {
        self.code.begin_anew();
        self.put_back(state, clock);
    }

    /// The same on storage that was put back
    /// ([`storage_window::Capture::put_back`]) to what it was at the first
    /// [`restore`](Self::restore): code in pages that were not written need not be
    /// looked at again.
    pub fn put_back(&mut self, state: &SoftState, clock: Clock) {
        let _ = self.serve();
        // A level that stays as it was would be no news to this vCPU.
        self.shared.forget_lines();
        self.cpu.x = [0; 256];
        self.cpu.x[..32].copy_from_slice(&state.x);
        self.cpu.f = state.f;
        self.cpu.csrs = state.csrs.clone();
        self.cpu.csrs.set_external(false);
        self.cpu.retired = state.retired;
        self.cpu.reservation = Reservation::NONE;
        self.trapped_in_handler = None;
        self.set_clock(clock);
        self.cpu.go((state.privilege, state.pc));
        self.cpu.forget_translations(None);
        self.code.forget_stale(&mut self.cpu);
        self.code.fence(&mut self.cpu);
    }

    /// Guest time now, in ticks of the `time` CSR.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.config.clock.now()
    }

    /// Counts by `clock` from now on. All vCPUs of a machine have the same.
    pub fn set_clock(&mut self, clock: Clock) {
        self.config.clock = clock;
        self.cpu.clock = clock;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use engine::{Bus, BusError, Exit, Interrupt, Vcpu};
    use main_storage::StorageRange;
    use storage_window::{Backing, MainStorage, StorageWindow};

    use super::*;
    use crate::vcpu::SoftConfig;

    /// Supervisor external interrupt pending.
    const SEIP: u64 = 1 << 9;

    fn vcpu() -> SoftVcpu {
        vcpu_and_window().0
    }

    fn vcpu_and_window() -> (SoftVcpu, Arc<StorageWindow>) {
        let main = MainStorage::create(1 << 20, Backing::Memfd).unwrap();
        let range = StorageRange::new(0, 1 << 20).unwrap();
        let (storage, keys) = (main.storage_fd(), main.keys_fd());
        let window = StorageWindow::map(storage, keys, range, 0x8000_0000, 1 << 20).unwrap();
        (SoftVcpu::new(0, Arc::clone(&window), SoftConfig::default()), window)
    }

    #[test]
    fn an_interrupt_line_that_was_high_before_is_seen_after() {
        let mut vcpu = vcpu();
        let handle = vcpu.handle();
        handle.set_interrupt(Interrupt::External, true);
        let state = vcpu.save();
        vcpu.restore(&state, Clock::at(7));
        // As the interrupt controller says it when it is restored, too: a guest
        // that was put back in place waited for its devices for ever.
        handle.set_interrupt(Interrupt::External, true);
        let _ = vcpu.serve();
        assert_ne!(vcpu.cpu.csrs.pending() & SEIP, 0);
    }

    struct NoDevices;

    impl Bus for NoDevices {
        fn read(&self, address: u64, _: &mut [u8]) -> Result<(), BusError> {
            Err(BusError { address })
        }

        fn write(&self, address: u64, _: &[u8]) -> Result<(), BusError> {
            Err(BusError { address })
        }
    }

    /// A vCPU whose page at the start of storage sets a register to a number and
    /// calls the firmware.
    struct Page {
        vcpu: SoftVcpu,
        window: Arc<StorageWindow>,
        start: SoftState,
    }

    impl Page {
        fn new() -> Self {
            let (mut vcpu, window) = vcpu_and_window();
            vcpu.cpu.go((Privilege::Supervisor, 0x8000_0000));
            let start = vcpu.save();
            vcpu.restore(&start, Clock::at(0));
            Self { vcpu, window, start }
        }

        /// As a guest's store, if it is one, with the mark that it makes.
        fn put(&self, number: u32, mark: u8) {
            let code = [number << 20 | 10 << 7 | 0x13, 0x73].map(u32::to_le_bytes).concat();
            // SAFETY: the first bytes of storage, which nobody uses meanwhile.
            unsafe { self.window.host_base().copy_from(code.as_ptr(), code.len()) };
            self.window.key_cell(0).store(mark, Ordering::SeqCst);
        }

        fn runs(&mut self) -> u64 {
            assert_eq!(self.vcpu.run(&NoDevices), Exit::FirmwareCall);
            self.vcpu.cpu.x[10]
        }
    }

    #[test]
    fn code_that_was_put_back_is_what_it_was_whenever_it_was_written() {
        const DIRTY: u8 = main_storage::StorageKey::DIRTY;
        let mut page = Page::new();
        page.put(1, 0);
        assert_eq!(page.runs(), 1);
        // Not written: not looked at, so nobody sees this.
        page.put(2, 0);
        page.vcpu.put_back(&page.start, Clock::at(0));
        assert_eq!(page.runs(), 1);
        // Written, and executed as it was written or not; then put back.
        for executed in [false, true] {
            page.put(3, DIRTY);
            if executed {
                page.vcpu.put_back(&page.start, Clock::at(0));
                assert_eq!(page.runs(), 3);
            }
            page.put(1, 0);
            page.vcpu.put_back(&page.start, Clock::at(0));
            assert_eq!(page.runs(), 1, "executed: {executed}");
        }
        // Another storage.
        page.put(4, 0);
        page.vcpu.restore(&page.start, Clock::at(0));
        assert_eq!(page.runs(), 4);
    }

    #[test]
    fn another_vcpu_goes_on_where_this_one_was() {
        let (mut one, mut other) = (vcpu(), vcpu());
        one.cpu.x[5] = 42;
        one.cpu.f[31] = 43;
        one.cpu.go((Privilege::User, 0x8000_1000));
        let text = serde_json::to_string(&one.save()).unwrap();
        other.cpu.x[6] = 1;
        other.restore(&serde_json::from_str(&text).unwrap(), Clock::at(1 << 40));
        assert_eq!((other.cpu.x[5], other.cpu.x[6], other.cpu.f[31]), (42, 0, 43));
        assert_eq!((other.cpu.privilege(), other.cpu.pc), (Privilege::User, 0x8000_1000));
        assert!(other.ticks() >= 1 << 40);
    }
}
