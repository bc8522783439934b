//! The architectural state of a hart and the slow ways into storage.
//!
//! [`Cpu`] is everything an instruction may touch but the decoded code. Loads
//! and stores try the TLB inline and come here otherwise: page table walks,
//! misaligned and page-crossing accesses, device registers. A trap leaves its
//! details in [`Cpu::trap`] and only a zero-sized [`Faulted`] travels through
//! the hot loop.

use engine::Bus;
use riscv::csr::{Counters, Csrs, number};
use riscv::mmu::{self, Access, PAGE_SIZE, Translation};
use riscv::trap::{self, Exception, Privilege, Trap};

use crate::clock::Clock;
use crate::jit::native::Native;
use crate::storage::{CHANGE, Host, REFERENCE, Ram, Width};
use crate::tlb::{Fill, Tlb};

/// The instruction traps; [`Cpu::trap`] has the details.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faulted;

/// A word loaded by `lr`, for the next `sc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reservation {
    /// 0 if there is none.
    pub(crate) host: Host,
    pub(crate) size: u64,
    pub(crate) value: u64,
}

impl Reservation {
    pub(crate) const NONE: Self = Self { host: 0, size: 0, value: 0 };
}

/// See the module.
pub(crate) struct Cpu {
    /// `x0` to `x31` and the sink for writes of `x0`; as many as a register
    /// number in a decoded instruction has values, so that no index is out of
    /// range.
    pub(crate) x: [u64; 256],
    pub(crate) f: [u64; 32],
    pub(crate) pc: u64,
    pub(crate) csrs: Csrs,
    /// Instructions retired before the present run of the inner loop ends.
    pub(crate) retired: u64,
    pub(crate) ram: Ram,
    pub(crate) tlb: Tlb,
    pub(crate) trap: Trap,
    pub(crate) reservation: Reservation,
    pub(crate) clock: Clock,
    /// Set by an access-right change that translations cached for fetching
    /// do not survive; see [`StaleLookups`].
    pub(crate) stale: StaleLookups,
    /// What compiled code needs besides.
    pub(crate) native: Native,
    privilege: Privilege,
    fetch_set: usize,
    pauses: u32,
}

/// A short spin is over before a call of the host's scheduler would be.
const PAUSES_PER_YIELD: u32 = 32;

/// Which fetch translations the code cache has to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StaleLookups {
    None,
    /// Of the page around this address.
    Page(u64),
    /// All that are not from global mappings.
    Local,
    All,
}

impl Cpu {
    pub(crate) fn new(hart_id: u64, ram: Ram, clock: Clock) -> Self {
        let mut cpu = Self {
            x: [0; 256],
            f: [0; 32],
            pc: 0,
            csrs: Csrs::new(hart_id),
            retired: 0,
            ram,
            tlb: Tlb::new(),
            trap: Trap::illegal(0),
            reservation: Reservation::NONE,
            clock,
            stale: StaleLookups::None,
            native: Native::new(),
            privilege: Privilege::Machine,
            fetch_set: 0,
            pauses: 0,
        };
        cpu.refresh();
        cpu
    }

    pub(crate) fn privilege(&self) -> Privilege {
        self.privilege
    }

    /// Goes on in `privilege` at `pc`: a trap, a return, a start.
    pub(crate) fn go(&mut self, (privilege, pc): (Privilege, u64)) {
        self.privilege = privilege;
        self.pc = pc;
        self.refresh();
    }

    /// Which of the fetch translation sets is in force.
    #[inline(always)]
    pub(crate) fn fetch_set(&self) -> usize {
        self.fetch_set
    }

    /// Adapts what is derived from privilege, `mstatus` and `satp`.
    pub(crate) fn refresh(&mut self) {
        let data = self.csrs.data_privilege(self.privilege);
        self.tlb.select(&self.csrs.translation(data));
        let fetch = self.csrs.translation(self.privilege);
        self.fetch_set = match self.privilege {
            _ if fetch.is_bare() => 2,
            Privilege::User => 0,
            _ => 1,
        };
        self.native.table = self.native.jumps.table(self.fetch_set);
    }

    /// Takes the trap in [`Cpu::trap`], raised by the instruction at `pc`.
    pub(crate) fn take_trap(&mut self) {
        let to = trap::take_exception(&mut self.csrs, self.privilege, self.trap, self.pc);
        self.go(to);
    }

    /// Takes interrupt `number` before the instruction at `pc`.
    pub(crate) fn take_interrupt(&mut self, number: u32) {
        let to = trap::take_interrupt(&mut self.csrs, self.privilege, number, self.pc);
        self.go(to);
    }

    /// `pause`: the guest spins for another hart. If that does not run just
    /// now, for want of a host processor, spinning on would keep it waiting.
    pub(crate) fn pause(&mut self) {
        self.pauses = self.pauses.wrapping_add(1);
        if self.pauses.is_multiple_of(PAUSES_PER_YIELD) {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }

    /// Records a trap.
    #[cold]
    pub(crate) fn fault(&mut self, exception: Exception, value: u64) -> Faulted {
        self.raise(Trap { exception, value })
    }

    #[cold]
    pub(crate) fn raise(&mut self, trap: Trap) -> Faulted {
        self.trap = trap;
        Faulted
    }

    /// What the counting CSRs show to an instruction that accesses `number`.
    pub(crate) fn counters(&self, csr: u16) -> Counters {
        // Only the one CSR is worth a look at the host's clock.
        let time = if csr == number::TIME { self.clock.now() } else { 0 };
        Counters { time, retired: self.retired }
    }

    /// Forgets translations: all, or of the page around an address.
    pub(crate) fn forget_translations(&mut self, page: Option<u64>) {
        match page {
            None => {
                self.tlb.clear();
                self.stale = StaleLookups::All;
            }
            Some(address) => {
                self.tlb.clear_page(address);
                self.stale = match self.stale {
                    StaleLookups::None => StaleLookups::Page(address),
                    _ => StaleLookups::All,
                };
            }
        }
    }

    /// After a write of `satp`: other address spaces' translations are
    /// forgotten, so their ASIDs need not be kept with them.
    pub(crate) fn address_space_changed(&mut self, old: u64) {
        let new = self.csrs.satp();
        if old >> 60 != new >> 60 {
            self.forget_translations(None);
        } else if old != new {
            self.tlb.clear_local();
            self.stale = match self.stale {
                StaleLookups::None | StaleLookups::Local => StaleLookups::Local,
                _ => StaleLookups::All,
            };
        }
    }

    /// Translates for the hart's present privilege (MPRV in force for data).
    pub(crate) fn translate(&mut self, address: u64, access: Access) -> Result<Translation, Trap> {
        let privilege = match access {
            Access::Fetch => self.privilege,
            Access::Load | Access::Store => self.csrs.data_privilege(self.privilege),
        };
        let context = self.csrs.translation(privilege);
        let translation = mmu::translate(&context, address, access, &self.ram)?;
        if self.ram.host(translation.physical).is_some() {
            let bits = if access == Access::Store { REFERENCE | CHANGE } else { REFERENCE };
            self.ram.mark(translation.physical, bits);
        }
        Ok(translation)
    }

    /// The host address behind a virtual one, and the TLB taught about it; or
    /// the physical address of what is not storage.
    fn locate(&mut self, address: u64, access: Access) -> Result<Result<Host, u64>, Faulted> {
        let translation = self.translate(address, access).map_err(|trap| self.raise(trap))?;
        let Some(host) = self.ram.host(translation.physical) else {
            return Ok(Err(translation.physical));
        };
        let fill = Fill {
            virtual_address: address,
            host,
            leaf_size: translation.leaf_size,
            global: translation.global,
        };
        match access {
            Access::Store => self.tlb.fill_write(fill),
            Access::Load | Access::Fetch => self.tlb.fill_read(fill),
        }
        Ok(Ok(host))
    }

    /// A load that the TLB could not serve, zero-extended.
    #[cold]
    #[inline(never)]
    pub(crate) fn load_slowly<T: Width>(
        &mut self,
        address: u64,
        bus: &dyn Bus,
    ) -> Result<u64, Faulted> {
        if !address.is_multiple_of(T::SIZE) {
            return self.load_misaligned(address, T::SIZE);
        }
        match self.locate(address, Access::Load)? {
            // SAFETY: `locate` gave the host address of guest storage for this
            // aligned address, so all its bytes are in that same page.
            Ok(host) => Ok(unsafe { T::load(host) }.widen()),
            Err(physical) => {
                let mut bytes = [0; 8];
                match bus.read(physical, &mut bytes[..T::SIZE as usize]) {
                    Ok(()) => Ok(u64::from_le_bytes(bytes)),
                    Err(_) => Err(self.raise(Access::Load.access_fault(address))),
                }
            }
        }
    }

    /// Byte by byte; both pages are translated before the first.
    fn load_misaligned(&mut self, address: u64, size: u64) -> Result<u64, Faulted> {
        let parts = self.locate_parts(address, size, Access::Load)?;
        let mut value = 0;
        for index in 0..size {
            // SAFETY: `byte_of` stays in the page that was located.
            let byte = unsafe { u8::load(byte_of(address, index, parts)) };
            value |= byte.widen() << (8 * index);
        }
        Ok(value)
    }

    /// A store that the TLB could not serve.
    #[cold]
    #[inline(never)]
    pub(crate) fn store_slowly<T: Width>(
        &mut self,
        address: u64,
        value: u64,
        bus: &dyn Bus,
    ) -> Result<(), Faulted> {
        if !address.is_multiple_of(T::SIZE) {
            return self.store_misaligned(address, T::SIZE, value);
        }
        match self.locate(address, Access::Store)? {
            // SAFETY: as in `load_slowly`.
            Ok(host) => unsafe { T::store(host, T::narrow(value)) },
            Err(physical) => {
                let bytes = value.to_le_bytes();
                if bus.write(physical, &bytes[..T::SIZE as usize]).is_err() {
                    return Err(self.raise(Access::Store.access_fault(address)));
                }
            }
        }
        Ok(())
    }

    fn store_misaligned(&mut self, address: u64, size: u64, value: u64) -> Result<(), Faulted> {
        let parts = self.locate_parts(address, size, Access::Store)?;
        for index in 0..size {
            let byte = (value >> (8 * index)) as u8;
            // SAFETY: `byte_of` stays in the page that was located.
            unsafe { u8::store(byte_of(address, index, parts), byte) };
        }
        Ok(())
    }

    /// The host addresses of `address` and of the first byte of the next page
    /// (the same again if the access does not reach it). Misaligned accesses
    /// to device registers are access faults.
    fn locate_parts(
        &mut self,
        address: u64,
        size: u64,
        access: Access,
    ) -> Result<(Host, Host), Faulted> {
        let cached = match access {
            Access::Store => self.tlb.write(address, 1),
            Access::Load | Access::Fetch => self.tlb.read(address, 1),
        };
        let first = match cached {
            Some(host) => host,
            None => self.locate_storage(address, access)?,
        };
        let room = PAGE_SIZE - address % PAGE_SIZE;
        let second = if size > room {
            self.locate_storage(address.wrapping_add(room), access)?
        } else {
            first
        };
        Ok((first, second))
    }

    fn locate_storage(&mut self, address: u64, access: Access) -> Result<Host, Faulted> {
        match self.locate(address, access)? {
            Ok(host) => Ok(host),
            Err(_) => Err(self.raise(access.access_fault(address))),
        }
    }

    /// The host address behind a virtual one, if that is storage that may be accessed
    /// so, and about to be.
    pub(crate) fn storage_at(&mut self, address: u64, access: Access) -> Option<Host> {
        let cached = match access {
            Access::Store => self.tlb.write(address, 1),
            Access::Load | Access::Fetch => self.tlb.read(address, 1),
        };
        cached.or_else(|| self.locate(address, access).ok()?.ok())
    }

    /// The host address of an aligned word for `lr`, `sc` and AMOs that the
    /// TLB could not serve.
    #[cold]
    #[inline(never)]
    pub(crate) fn locate_atomic(
        &mut self,
        address: u64,
        size: u64,
        access: Access,
    ) -> Result<Host, Faulted> {
        if !address.is_multiple_of(size) {
            let exception = match access {
                Access::Store => Exception::StoreMisaligned,
                Access::Load | Access::Fetch => Exception::LoadMisaligned,
            };
            return Err(self.fault(exception, address));
        }
        self.locate_storage(address, access)
    }
}

/// Where byte `index` of a misaligned access is, given where the access and
/// the next page begin.
fn byte_of(address: u64, index: u64, (first, second): (Host, Host)) -> Host {
    let room = PAGE_SIZE - address % PAGE_SIZE;
    if index < room { first + index as usize } else { second + (index - room) as usize }
}
