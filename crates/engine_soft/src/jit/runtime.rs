//! What compiled code calls: the rare and the long.
//!
//! Each function gets the hart and leaves its result in [`Native::value`] and
//! [`Native::status`]. They are called through stubs that keep every register
//! of the host, so that a call costs the code around it nothing.

use riscv::mmu::Access;
use riscv::{Inst, Op};

use super::flags;
use super::native::status;
use super::operands::{has_second, is_fused, reads_integer};
use crate::cpu::{Cpu, Faulted, StaleLookups};
use crate::interpreter::{access_csr, execute_float};
use crate::storage::Width;

/// In the `size` of [`locate`]: for a store.
pub(crate) const FOR_STORE: u64 = 0x100;

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

/// A load of 1, 2, 4 or 8 bytes, zero-extended.
pub(crate) unsafe extern "C" fn load(cpu: *mut Cpu, address: u64, size: u64) {
    // SAFETY: called by compiled code only.
    unsafe {
        with(cpu, |cpu| {
            // Whoever shares another's look-up has not looked itself.
            if let Some(host) = cpu.tlb.read(address, size) {
                // SAFETY: the TLB gives aligned addresses of guest storage.
                return Ok(match size {
                    1 => u8::load(host).widen(),
                    2 => u16::load(host).widen(),
                    4 => u32::load(host).widen(),
                    _ => u64::load(host),
                });
            }
            let armed = disarm(cpu);
            // SAFETY: `run` is active, so its bus is there.
            let Some(bus) = cpu.native.bus.get() else { return Err(cpu.no_bus(address)) };
            let result = match size {
                1 => cpu.load_slowly::<u8>(address, bus),
                2 => cpu.load_slowly::<u16>(address, bus),
                4 => cpu.load_slowly::<u32>(address, bus),
                _ => cpu.load_slowly::<u64>(address, bus),
            };
            rearm(cpu, armed);
            result
        });
    }
}

/// A store of the low 1, 2, 4 or 8 bytes of `value`.
pub(crate) unsafe extern "C" fn store(cpu: *mut Cpu, address: u64, value: u64, size: u64) {
    // SAFETY: called by compiled code only.
    unsafe {
        with(cpu, |cpu| {
            if let Some(host) = cpu.tlb.write(address, size) {
                // SAFETY: as for loads.
                match size {
                    1 => u8::store(host, u8::narrow(value)),
                    2 => u16::store(host, u16::narrow(value)),
                    4 => u32::store(host, u32::narrow(value)),
                    _ => u64::store(host, value),
                }
                return Ok(0);
            }
            let armed = disarm(cpu);
            // SAFETY: `run` is active, so its bus is there.
            let Some(bus) = cpu.native.bus.get() else { return Err(cpu.no_bus(address)) };
            let result = match size {
                1 => cpu.store_slowly::<u8>(address, value, bus),
                2 => cpu.store_slowly::<u16>(address, value, bus),
                4 => cpu.store_slowly::<u32>(address, value, bus),
                _ => cpu.store_slowly::<u64>(address, value, bus),
            };
            rearm(cpu, armed);
            result.map(|()| 0)
        });
    }
}

/// The host address for an atomic access of `size & 0xff` bytes.
pub(crate) unsafe extern "C" fn locate(cpu: *mut Cpu, address: u64, size: u64) {
    let access = if size & FOR_STORE != 0 { Access::Store } else { Access::Load };
    // SAFETY: called by compiled code only.
    unsafe {
        with(cpu, |cpu| cpu.locate_atomic(address, size & 0xFF, access).map(|host| host as u64));
    }
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
