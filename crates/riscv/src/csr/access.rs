//! The three steps of a CSR access: check, read, write.

use super::{
    COUNTER_TIME, COUNTERS, Counters, Csrs, MACHINE_INTERRUPTS, SEIP, SSIP, STIP,
    SUPERVISOR_INTERRUPTS, envcfg, number as n, status,
};
use crate::trap::Privilege;

/// The access is an illegal instruction: no such CSR, or not for this mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IllegalAccess;

/// RV64 with extensions A, B, C, D, F, I, M and modes S, U.
const MISA: u64 =
    2 << 62 | 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 8 | 1 << 12 | 1 << 18 | 1 << 20;

const MSTATUS_WRITABLE: u64 = SSTATUS_WRITABLE
    | status::MIE
    | status::MPIE
    | status::MPP
    | status::MPRV
    | status::TVM
    | status::TW
    | status::TSR;
const SSTATUS_WRITABLE: u64 =
    status::SIE | status::SPIE | status::SPP | status::FS | status::SUM | status::MXR;

/// Exceptions that can be delegated: all but calls from S and M.
const MEDELEG_WRITABLE: u64 = 0xB1FF;

const SATP_BARE: u64 = 0;
const SATP_SV39: u64 = 8;
const SATP_SV48: u64 = 9;

impl Csrs {
    /// Whether an instruction in `privilege` may access CSR `number`;
    /// `write` says whether it would write it. No side effect.
    ///
    /// # Errors
    /// [`IllegalAccess`]: the instruction is illegal.
    pub fn check(
        &self,
        number: u16,
        privilege: Privilege,
        write: bool,
    ) -> Result<(), IllegalAccess> {
        let lowest = number >> 8 & 3;
        let read_only = number >> 10 == 3;
        if (privilege as u16) < lowest || write && read_only {
            return Err(IllegalAccess);
        }
        let allowed = match number {
            n::FFLAGS | n::FRM | n::FCSR => self.fp_enabled(),
            n::CYCLE | n::TIME | n::INSTRET => {
                self.counter_readable(1 << (number - n::CYCLE), privilege)
            }
            n::SATP => privilege != Privilege::Supervisor || self.mstatus & status::TVM == 0,
            n::STIMECMP => {
                privilege == Privilege::Machine
                    || self.menvcfg & envcfg::STCE != 0 && self.mcounteren & COUNTER_TIME != 0
            }
            // Only the even ones exist on RV64.
            n::PMPCFG0..=n::PMPCFG15 => number & 1 == 0,
            n::SSTATUS
            | n::SIE
            | n::STVEC
            | n::SCOUNTEREN
            | n::SENVCFG
            | n::SSCRATCH
            | n::SEPC
            | n::SCAUSE
            | n::STVAL
            | n::SIP
            | n::MSTATUS
            | n::MISA
            | n::MEDELEG
            | n::MIDELEG
            | n::MIE
            | n::MTVEC
            | n::MCOUNTEREN
            | n::MENVCFG
            | n::MCOUNTINHIBIT
            | n::MHPMEVENT3..=n::MHPMEVENT31
            | n::MSCRATCH
            | n::MEPC
            | n::MCAUSE
            | n::MTVAL
            | n::MIP
            | n::PMPADDR0..=n::PMPADDR63
            | n::TSELECT..=n::TDATA3
            | n::MCYCLE
            | n::MINSTRET
            | n::MHPMCOUNTER3..=n::MHPMCOUNTER31
            | n::MVENDORID..=n::MCONFIGPTR => true,
            _ => false,
        };
        if allowed { Ok(()) } else { Err(IllegalAccess) }
    }

    fn counter_readable(&self, bit: u64, privilege: Privilege) -> bool {
        match privilege {
            Privilege::Machine => true,
            Privilege::Supervisor => self.mcounteren & bit != 0,
            Privilege::User => self.mcounteren & self.scounteren & bit != 0,
        }
    }

    /// The value of CSR `number`; 0 for one that [`Csrs::check`] refuses. No
    /// side effect.
    #[must_use]
    pub fn read(&self, number: u16, counters: Counters) -> u64 {
        match number {
            n::FFLAGS => u64::from(self.fflags),
            n::FRM => u64::from(self.frm),
            n::FCSR => u64::from(self.frm) << 5 | u64::from(self.fflags),
            n::CYCLE | n::MCYCLE => counters.retired.wrapping_add(self.cycle_base),
            n::TIME => counters.time,
            n::INSTRET | n::MINSTRET => counters.retired.wrapping_add(self.instret_base),
            n::SSTATUS => self.status() & (SSTATUS_WRITABLE | status::SD | status::UXL_64),
            n::SIE => self.mie & self.mideleg,
            n::STVEC => self.stvec,
            n::SCOUNTEREN => self.scounteren,
            n::SENVCFG => self.senvcfg,
            n::SSCRATCH => self.sscratch,
            n::SEPC => self.sepc,
            n::SCAUSE => self.scause,
            n::STVAL => self.stval,
            n::SIP => self.pending() & self.mideleg,
            n::STIMECMP => self.stimecmp,
            n::SATP => self.satp,
            n::MSTATUS => self.status(),
            n::MISA => MISA,
            n::MEDELEG => self.medeleg,
            n::MIDELEG => self.mideleg,
            n::MIE => self.mie,
            n::MTVEC => self.mtvec,
            n::MCOUNTEREN => self.mcounteren,
            n::MENVCFG => self.menvcfg,
            n::MSCRATCH => self.mscratch,
            n::MEPC => self.mepc,
            n::MCAUSE => self.mcause,
            n::MTVAL => self.mtval,
            n::MIP => self.pending(),
            n::MHARTID => self.hart_id,
            _ => 0,
        }
    }

    /// The value a set or clear instruction (CSRRS, CSRRC) modifies. As
    /// [`Csrs::read`] but for `mip`, whose SEIP then leaves the interrupt
    /// controller's line out (section 3.1.9).
    #[must_use]
    pub fn read_for_modify(&self, number: u16, counters: Counters) -> u64 {
        match number {
            n::MIP => self.pending() & !SEIP | self.software_pending & SEIP,
            _ => self.read(number, counters),
        }
    }

    /// `mstatus` with its summary bit SD.
    fn status(&self) -> u64 {
        let dirty = self.mstatus & status::FS == status::FS;
        self.mstatus | if dirty { status::SD } else { 0 }
    }

    /// Writes the legal part of `value` to CSR `number`; nothing for one that
    /// [`Csrs::check`] refuses. After a write of `satp`, `mstatus`, `sstatus`
    /// or `menvcfg` translations follow a new [`Csrs::translation`].
    pub fn write(&mut self, number: u16, value: u64, counters: Counters) {
        match number {
            n::FFLAGS | n::FRM | n::FCSR => self.write_fp(number, value),
            n::SSTATUS => self.write_status(value, SSTATUS_WRITABLE),
            n::MSTATUS => self.write_status(value, MSTATUS_WRITABLE),
            n::SIE => self.mie = merge(self.mie, value, self.mideleg),
            n::MIE => self.mie = value & (SUPERVISOR_INTERRUPTS | MACHINE_INTERRUPTS),
            n::SIP => self.write_pending(value, SSIP & self.mideleg),
            n::MIP => self.write_pending(value, SUPERVISOR_INTERRUPTS),
            n::STVEC => self.stvec = legal_vector(self.stvec, value),
            n::MTVEC => self.mtvec = legal_vector(self.mtvec, value),
            n::SCOUNTEREN => self.scounteren = value & COUNTERS,
            n::MCOUNTEREN => self.mcounteren = value & COUNTERS,
            n::SENVCFG => self.senvcfg = value & envcfg::FIOM,
            n::MENVCFG => self.menvcfg = value & (envcfg::FIOM | envcfg::ADUE | envcfg::STCE),
            n::SSCRATCH => self.sscratch = value,
            n::MSCRATCH => self.mscratch = value,
            n::SEPC => self.sepc = value & !1,
            n::MEPC => self.mepc = value & !1,
            n::SCAUSE => self.scause = value,
            n::MCAUSE => self.mcause = value,
            n::STVAL => self.stval = value,
            n::MTVAL => self.mtval = value,
            n::STIMECMP => self.stimecmp = value,
            n::SATP if matches!(value >> 60, SATP_BARE | SATP_SV39 | SATP_SV48) => {
                self.satp = value;
            }
            n::MEDELEG => self.medeleg = value & MEDELEG_WRITABLE,
            n::MIDELEG => self.mideleg = value & SUPERVISOR_INTERRUPTS,
            // The writing instruction itself is not counted on top.
            n::MCYCLE => self.cycle_base = value.wrapping_sub(counters.retired + 1),
            n::MINSTRET => self.instret_base = value.wrapping_sub(counters.retired + 1),
            _ => {}
        }
    }

    fn write_fp(&mut self, number: u16, value: u64) {
        // The masks make both fit a byte.
        if number != n::FRM {
            self.fflags = (value & 31) as u8;
        }
        match number {
            n::FRM => self.frm = (value & 7) as u8,
            n::FCSR => self.frm = (value >> 5 & 7) as u8,
            _ => {}
        }
        self.set_fp_dirty();
    }

    fn write_status(&mut self, value: u64, writable: u64) {
        let mut new = merge(self.mstatus, value, writable);
        if new & status::MPP == 2 << status::MPP_SHIFT {
            new = merge(new, self.mstatus, status::MPP);
        }
        self.mstatus = new;
    }

    fn write_pending(&mut self, value: u64, writable: u64) {
        let timer = if self.menvcfg & envcfg::STCE != 0 { STIP } else { 0 };
        self.software_pending = merge(self.software_pending, value, writable & !timer);
    }
}

/// `old` with the bits of `mask` taken from `new`.
fn merge(old: u64, new: u64, mask: u64) -> u64 {
    old & !mask | new & mask
}

/// Direct and vectored are the legal modes; another leaves the old one.
fn legal_vector(old: u64, value: u64) -> u64 {
    if value & 3 < 2 { value } else { value & !3 | old & 3 }
}
