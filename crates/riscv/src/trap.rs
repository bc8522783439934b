//! Traps: causes, entry, return, and which interrupt is next.
//!
//! Privileged specification 1.13, sections 3.1.6 to 3.1.16 and 3.3, 12.1.
//! Nothing here touches a program counter or privilege of its own: both are
//! arguments and results.

use serde::{Deserialize, Serialize};

use crate::csr::{Csrs, status};

/// Privilege modes, in the encoding of `mstatus.MPP`.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Privilege {
    /// U-mode.
    User = 0,
    /// S-mode.
    Supervisor = 1,
    /// M-mode.
    Machine = 3,
}

impl Privilege {
    /// The mode that a two-bit field holds; the reserved value 2 reads as U,
    /// which the CSRs never let in.
    pub(crate) fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            1 => Self::Supervisor,
            3 => Self::Machine,
            _ => Self::User,
        }
    }
}

/// Synchronous causes, with their `xcause` code (table 14).
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    /// Jump to an address that is no multiple of IALIGN.
    InstructionMisaligned = 0,
    /// Nothing to fetch from at the physical address.
    InstructionAccessFault = 1,
    /// Not an instruction here, or not at this privilege.
    IllegalInstruction = 2,
    /// `ebreak`.
    Breakpoint = 3,
    /// A misaligned `lr`.
    LoadMisaligned = 4,
    /// Nothing to load from at the physical address.
    LoadAccessFault = 5,
    /// A misaligned `sc` or AMO.
    StoreMisaligned = 6,
    /// Nothing to store to at the physical address.
    StoreAccessFault = 7,
    /// `ecall` from U-mode.
    UserCall = 8,
    /// `ecall` from S-mode.
    SupervisorCall = 9,
    /// `ecall` from M-mode.
    MachineCall = 11,
    /// A fetch that the page tables refuse.
    InstructionPageFault = 12,
    /// A load that the page tables refuse.
    LoadPageFault = 13,
    /// A store or AMO that the page tables refuse.
    StorePageFault = 15,
}

/// A synchronous trap: its cause and what `xtval` will hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trap {
    /// Why.
    pub exception: Exception,
    /// Faulting address or instruction bits; 0 where the standard has none.
    pub value: u64,
}

impl Trap {
    /// An illegal instruction whose encoding is `bits`.
    #[must_use]
    pub fn illegal(bits: u32) -> Self {
        Self { exception: Exception::IllegalInstruction, value: u64::from(bits) }
    }
}

/// Interrupt numbers: bit positions in `mip` and codes in `xcause`.
pub mod interrupt {
    /// Supervisor software interrupt.
    pub const SUPERVISOR_SOFTWARE: u32 = 1;
    /// Machine software interrupt.
    pub const MACHINE_SOFTWARE: u32 = 3;
    /// Supervisor timer interrupt.
    pub const SUPERVISOR_TIMER: u32 = 5;
    /// Machine timer interrupt.
    pub const MACHINE_TIMER: u32 = 7;
    /// Supervisor external interrupt.
    pub const SUPERVISOR_EXTERNAL: u32 = 9;
    /// Machine external interrupt.
    pub const MACHINE_EXTERNAL: u32 = 11;

    /// Highest priority first (section 3.1.9).
    pub(crate) const PRIORITY: [u32; 6] = [
        MACHINE_EXTERNAL,
        MACHINE_SOFTWARE,
        MACHINE_TIMER,
        SUPERVISOR_EXTERNAL,
        SUPERVISOR_SOFTWARE,
        SUPERVISOR_TIMER,
    ];
}

const INTERRUPT_BIT: u64 = 1 << 63;

/// Takes a synchronous trap raised at `pc` in mode `from`: records it in the
/// CSRs of the mode that handles it and returns that mode and where its
/// handler is.
pub fn take_exception(csrs: &mut Csrs, from: Privilege, trap: Trap, pc: u64) -> (Privilege, u64) {
    let code = trap.exception as u64;
    let delegated = from < Privilege::Machine && csrs.medeleg >> code & 1 != 0;
    enter(csrs, from, delegated, code, trap.value, pc)
}

/// Takes interrupt `number` (see [`interrupt`]) before the instruction at `pc`.
pub fn take_interrupt(csrs: &mut Csrs, from: Privilege, number: u32, pc: u64) -> (Privilege, u64) {
    let delegated = from < Privilege::Machine && csrs.mideleg >> number & 1 != 0;
    enter(csrs, from, delegated, u64::from(number) | INTERRUPT_BIT, 0, pc)
}

fn enter(
    csrs: &mut Csrs,
    from: Privilege,
    to_supervisor: bool,
    cause: u64,
    value: u64,
    pc: u64,
) -> (Privilege, u64) {
    let old = csrs.mstatus;
    let vector;
    if to_supervisor {
        csrs.sepc = pc;
        csrs.scause = cause;
        csrs.stval = value;
        let mut new = old & !(status::SIE | status::SPIE | status::SPP);
        if old & status::SIE != 0 {
            new |= status::SPIE;
        }
        if from == Privilege::Supervisor {
            new |= status::SPP;
        }
        csrs.mstatus = new;
        vector = csrs.stvec;
    } else {
        csrs.mepc = pc;
        csrs.mcause = cause;
        csrs.mtval = value;
        let mut new = old & !(status::MIE | status::MPIE | status::MPP);
        if old & status::MIE != 0 {
            new |= status::MPIE;
        }
        new |= (from as u64) << status::MPP_SHIFT;
        csrs.mstatus = new;
        vector = csrs.mtvec;
    }
    let base = vector & !3;
    let vectored = vector & 3 == 1 && cause & INTERRUPT_BIT != 0;
    let offset = if vectored { (cause & !INTERRUPT_BIT) * 4 } else { 0 };
    let mode = if to_supervisor { Privilege::Supervisor } else { Privilege::Machine };
    (mode, base.wrapping_add(offset))
}

/// `sret` (section 3.3.2): the mode and address to go on at. Whether the
/// instruction is allowed is for the caller to check.
pub fn return_from_supervisor(csrs: &mut Csrs) -> (Privilege, u64) {
    let old = csrs.mstatus;
    let to = if old & status::SPP != 0 { Privilege::Supervisor } else { Privilege::User };
    let mut new = old & !(status::SIE | status::SPP | status::MPRV);
    if old & status::SPIE != 0 {
        new |= status::SIE;
    }
    csrs.mstatus = new | status::SPIE;
    (to, csrs.sepc)
}

/// `mret` (section 3.3.2): the mode and address to go on at.
pub fn return_from_machine(csrs: &mut Csrs) -> (Privilege, u64) {
    let old = csrs.mstatus;
    let to = Privilege::from_bits(old >> status::MPP_SHIFT);
    let mut new = old & !(status::MIE | status::MPP);
    if old & status::MPIE != 0 {
        new |= status::MIE;
    }
    if to != Privilege::Machine {
        new &= !status::MPRV;
    }
    csrs.mstatus = new | status::MPIE;
    (to, csrs.mepc)
}

/// The interrupt that a hart in mode `privilege` takes before its next
/// instruction, if any (section 3.1.9).
#[must_use]
pub fn next_interrupt(csrs: &Csrs, privilege: Privilege) -> Option<u32> {
    let pending = csrs.pending() & csrs.mie;
    if pending == 0 {
        return None;
    }
    let machine_enabled = privilege < Privilege::Machine || csrs.mstatus & status::MIE != 0;
    let supervisor_enabled = privilege < Privilege::Supervisor
        || privilege == Privilege::Supervisor && csrs.mstatus & status::SIE != 0;
    let mut takable = 0;
    if machine_enabled {
        takable |= pending & !csrs.mideleg;
    }
    if takable == 0 && supervisor_enabled {
        takable = pending & csrs.mideleg;
    }
    interrupt::PRIORITY.into_iter().find(|number| takable >> number & 1 != 0)
}

#[cfg(test)]
mod tests;
