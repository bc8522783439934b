//! What compiled code calls: the rare and the long.
//!
//! Each function gets the hart and leaves its result in [`Native::value`] and
//! [`Native::status`]. They are called through stubs that keep every register
//! of the host, so that a call costs the code around it nothing.

use riscv::mmu::{Access, PAGE_SIZE};
use riscv::{Inst, Op};

use super::flags;
use super::native::status;
use super::operands::{has_second, is_fused, reads_integer};
use crate::cpu::{Cpu, Faulted, StaleLookups};
use crate::interpreter::{access_csr, execute_float};

/// In the `how` of [`find`], beside the size: for a store.
pub(crate) const FOR_STORE: u64 = 1 << 32;
/// The address has to be a multiple of the size.
pub(crate) const ALIGNED: u64 = 1 << 33;

/// Runs `body` with the hart behind `cpu` and files its result.
///
/// # Safety
/// `cpu` is the hart that was entered, in the thread that entered it.
unsafe fn with(cpu: *mut Cpu, body: impl FnOnce(&mut Cpu) -> Result<u64, Faulted>) {
    // SAFETY: the caller's promise; compiled code holds no reference, and the
    // Rust code that entered it has lent its own.
    let cpu = unsafe { &mut *cpu };
    let (status, value) = match body(cpu) {
        Ok(value) => (status::GO_ON, value),
        Err(Faulted) => (status::TRAP, 0),
    };
    cpu.native.status = status;
    cpu.native.value = value;
}

/// What to add to `address` to get that of the host for an access of as many bytes as
/// `how` says, if these are storage in one page and may be accessed so; else the
/// interpreter has to go on. The instruction is going to access them.
pub(crate) unsafe extern "C" fn find(cpu: *mut Cpu, address: u64, how: u64) {
    // SAFETY: called by compiled code only.
    let cpu = unsafe { &mut *cpu };
    let size = how & 0xFFFF;
    let inside = address % PAGE_SIZE + size <= PAGE_SIZE;
    let host = if !inside || how & ALIGNED != 0 && !address.is_multiple_of(size) {
        None
    } else if how & FOR_STORE != 0 {
        cpu.storage_at(address, Access::Store)
    } else {
        cpu.storage_at(address, Access::Load)
    };
    cpu.native.status = if host.is_some() { status::GO_ON } else { status::INTERPRET };
    cpu.native.value = host.map_or(0, |host| (host as u64).wrapping_sub(address));
}

/// Makes the host's floating-point flags the guest's, if floating point is on,
/// dirty and rounds to nearest even; else the interpreter has to go on.
pub(crate) unsafe extern "C" fn arm(cpu: *mut Cpu) {
    // SAFETY: called by compiled code only.
    let cpu = unsafe { &mut *cpu };
    let ready = flags::ARE_EXACT && cpu.csrs.fp_dirty() && cpu.csrs.frm() == 0;
    if ready {
        flags::clear();
        cpu.native.float_armed = 1;
    }
    cpu.native.status = if ready { status::GO_ON } else { status::INTERPRET };
}

/// A floating-point instruction on the values `a`, `b` and `c` of its source
/// registers, done in software.
pub(crate) unsafe extern "C" fn float(cpu: *mut Cpu, inst: u64, a: u64, b: u64, c: u64) {
    let inst = unpack(inst);
    // SAFETY: called by compiled code only.
    unsafe {
        with(cpu, |cpu| {
            let armed = disarm(cpu);
            if reads_integer(inst.op) {
                cpu.x[usize::from(inst.rs1)] = a;
            } else {
                cpu.f[usize::from(inst.rs1 & 31)] = a;
            }
            if has_second(inst) {
                cpu.f[usize::from(inst.rs2())] = b;
            }
            if is_fused(inst.op) {
                cpu.f[usize::from(inst.rs3())] = c;
            }
            let result = execute_float(cpu, inst);
            rearm(cpu, armed);
            result
        });
    }
}

/// A CSR instruction at `pc` with `left` instructions left and `operand` in
/// its source register; the value is what `rd` receives. Any status but
/// [`status::GO_ON`] and [`status::TRAP`] says how to leave after it.
pub(crate) unsafe extern "C" fn csr(cpu: *mut Cpu, inst: u64, operand: u64, pc: u64, left: u64) {
    let inst = unpack(inst);
    // SAFETY: called by compiled code only.
    let cpu = unsafe { &mut *cpu };
    disarm(cpu);
    cpu.pc = pc;
    cpu.retired = cpu.native.end.wrapping_sub(left);
    if matches!(inst.op, Op::Csrrw | Op::Csrrs | Op::Csrrc) && inst.rs1 != 0 {
        cpu.x[usize::from(inst.rs1)] = operand;
    }
    let satp = cpu.csrs.satp();
    cpu.native.status = match access_csr(cpu, inst) {
        Err(Faulted) => status::TRAP,
        Ok(true) => status::INTERRUPT,
        Ok(false) if cpu.stale == StaleLookups::None && cpu.csrs.satp() == satp => status::GO_ON,
        Ok(false) => status::LEAVE,
    };
    cpu.native.value = cpu.x[usize::from(inst.rd)];
}

/// Takes over the host's floating-point flags if they are the guest's;
/// whether they were.
pub(crate) fn disarm(cpu: &mut Cpu) -> bool {
    let armed = std::mem::take(&mut cpu.native.float_armed) != 0;
    if armed {
        cpu.csrs.raise_fflags(flags::raised());
    }
    armed
}

/// The host's flags are the guest's again, if they were before.
fn rearm(cpu: &mut Cpu, armed: bool) {
    if armed {
        flags::clear();
        cpu.native.float_armed = 1;
    }
}

/// An instruction as compiled code passes it.
pub(crate) fn pack(inst: Inst) -> u64 {
    u64::from(inst.op as u8)
        | u64::from(inst.rd) << 8
        | u64::from(inst.rs1) << 16
        | u64::from(inst.rs2) << 24
        | u64::from(inst.imm as u32) << 32
}

fn unpack(bits: u64) -> Inst {
    let [op, rd, rs1, rs2, ..] = bits.to_le_bytes();
    let op = Op::ALL.get(usize::from(op)).copied().unwrap_or(Op::Illegal);
    Inst { op, rd, rs1, rs2, imm: (bits >> 32) as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_survives_packing() {
        for op in Op::ALL {
            let inst = Inst::new(*op, 32, 31, 7, -2048).compressed();
            assert_eq!(unpack(pack(inst)), inst);
        }
    }
}
