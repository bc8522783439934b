//! System instructions: CSRs, traps on purpose, returns, fences, `wfi`.
//!
//! Rare next to everything else, so they run outside the hot loop with the
//! hart's `pc` and `retired` brought up to date.

use riscv::csr::number;
use riscv::trap::{self, Exception, Privilege};
use riscv::{Inst, Op};

use super::Stop;
use crate::code::CodeCache;
use crate::cpu::{Cpu, Faulted};

/// How execution goes on after a system instruction.
pub(super) enum Next {
    /// At the following instruction; state derived from CSRs may have changed.
    Following,
    /// At `Cpu::pc`.
    Jump,
    /// Not in the inner loop. `Cpu::pc` is where to go on.
    Leave(Stop),
}

/// Executes `inst`, found at `cpu.pc`. A call by S-mode leaves the guest if
/// `firmware_is_internal`.
#[cold]
#[inline(never)]
pub(super) fn execute(
    cpu: &mut Cpu,
    code: &mut CodeCache,
    inst: Inst,
    firmware_is_internal: bool,
) -> Result<Next, Faulted> {
    match inst.op {
        Op::Csrrw | Op::Csrrs | Op::Csrrc | Op::Csrrwi | Op::Csrrsi | Op::Csrrci => {
            access_csr(cpu, inst)
        }
        Op::Ecall => {
            let exception = match cpu.privilege() {
                Privilege::User => Exception::UserCall,
                Privilege::Supervisor if firmware_is_internal => {
                    cpu.pc = cpu.pc.wrapping_add(4);
                    return Ok(Next::Leave(Stop::Firmware));
                }
                Privilege::Supervisor => Exception::SupervisorCall,
                Privilege::Machine => Exception::MachineCall,
            };
            Err(cpu.fault(exception, 0))
        }
        Op::Ebreak => {
            let pc = cpu.pc;
            Err(cpu.fault(Exception::Breakpoint, pc))
        }
        Op::Sret if !cpu.csrs.sret_is_illegal(cpu.privilege()) => {
            let to = trap::return_from_supervisor(&mut cpu.csrs);
            cpu.go(to);
            Ok(Next::Jump)
        }
        Op::Mret if cpu.privilege() == Privilege::Machine => {
            let to = trap::return_from_machine(&mut cpu.csrs);
            cpu.go(to);
            Ok(Next::Jump)
        }
        Op::Wfi if !cpu.csrs.wfi_is_illegal(cpu.privilege()) => {
            cpu.pc = cpu.pc.wrapping_add(4);
            Ok(Next::Leave(Stop::Wait))
        }
        Op::SfenceVma if !cpu.csrs.sfence_is_illegal(cpu.privilege()) => {
            let page = (inst.rs1 != 0).then(|| cpu.x[usize::from(inst.rs1)]);
            cpu.forget_translations(page);
            Ok(Next::Following)
        }
        Op::FenceI => {
            code.fence(cpu);
            // The page being executed may be one that changed.
            cpu.pc = cpu.pc.wrapping_add(4);
            Ok(Next::Jump)
        }
        _ => Err(cpu.raise(trap::Trap::illegal(encoding(inst)))),
    }
}

/// Executes the CSR instruction `inst` at `cpu.pc` for compiled code; whether
/// an interrupt may be takable now.
pub(crate) fn for_compiled(cpu: &mut Cpu, inst: Inst) -> Result<bool, Faulted> {
    Ok(matches!(access_csr(cpu, inst)?, Next::Leave(_)))
}

fn access_csr(cpu: &mut Cpu, inst: Inst) -> Result<Next, Faulted> {
    let csr = (inst.imm & 0xFFF) as u16;
    let writes = matches!(inst.op, Op::Csrrw | Op::Csrrwi) || inst.rs1 != 0;
    if cpu.csrs.check(csr, cpu.privilege(), writes).is_err() {
        return Err(cpu.raise(trap::Trap::illegal(encoding(inst))));
    }
    let operand = match inst.op {
        Op::Csrrwi | Op::Csrrsi | Op::Csrrci => u64::from(inst.rs1),
        _ => cpu.x[usize::from(inst.rs1)],
    };
    if csr == number::SIP || csr == number::MIP {
        let now = cpu.clock.now();
        cpu.csrs.update_timer(now);
    }
    let counters = cpu.counters(csr);
    let old = cpu.csrs.read(csr, counters);
    if writes {
        let base = cpu.csrs.read_for_modify(csr, counters);
        let new = match inst.op {
            Op::Csrrw | Op::Csrrwi => operand,
            Op::Csrrs | Op::Csrrsi => base | operand,
            _ => base & !operand,
        };
        write_csr(cpu, csr, new, counters);
    }
    cpu.x[usize::from(inst.rd)] = old;
    // A write may have enabled an interrupt or made one pending.
    if writes && trap::next_interrupt(&cpu.csrs, cpu.privilege()).is_some() {
        cpu.pc = cpu.pc.wrapping_add(4);
        return Ok(Next::Leave(Stop::Interrupt));
    }
    Ok(Next::Following)
}

fn write_csr(cpu: &mut Cpu, csr: u16, value: u64, counters: riscv::csr::Counters) {
    let satp = cpu.csrs.satp();
    let before = cpu.csrs.translation(cpu.privilege());
    cpu.csrs.write(csr, value, counters);
    match csr {
        number::SATP => {
            cpu.address_space_changed(satp);
            cpu.refresh();
        }
        number::MSTATUS | number::SSTATUS | number::MENVCFG => {
            let after = cpu.csrs.translation(cpu.privilege());
            if before.executable_readable != after.executable_readable
                || before.hardware_update != after.hardware_update
            {
                // Rights that cached translations were given no longer hold.
                cpu.forget_translations(None);
            }
            cpu.refresh();
        }
        number::STIMECMP => {
            let now = cpu.clock.now();
            cpu.csrs.update_timer(now);
        }
        _ => {}
    }
}

/// The 32-bit encoding of a system instruction, for `xtval`.
fn encoding(inst: Inst) -> u32 {
    const SYSTEM: u32 = 0x73;
    let rd = if inst.rd == Inst::SINK { 0 } else { u32::from(inst.rd) };
    let rs1 = u32::from(inst.rs1) << 15;
    let csr = (inst.imm as u32) << 20;
    let csr_access = |funct3: u32| SYSTEM | rd << 7 | funct3 << 12 | rs1 | csr;
    match inst.op {
        Op::Csrrw => csr_access(1),
        Op::Csrrs => csr_access(2),
        Op::Csrrc => csr_access(3),
        Op::Csrrwi => csr_access(5),
        Op::Csrrsi => csr_access(6),
        Op::Csrrci => csr_access(7),
        Op::Sret => 0x1020_0073,
        Op::Mret => 0x3020_0073,
        Op::Wfi => 0x1050_0073,
        Op::SfenceVma => 0x1200_0073 | rs1 | u32::from(inst.rs2()) << 20,
        _ => 0,
    }
}
