//! The interpreter: one loop, one `match`.
//!
//! [`run`] executes from `Cpu::pc` until its budget of instructions is used up
//! or something happens that the loop cannot do ([`Stop`]). Within a page the
//! program counter is an offset into the decoded page; straight-line code and
//! jumps inside the page never leave the inner loop.
//!
//! Each arm is one instruction: operands from registers, a function of
//! `riscv::int` (or an operator), the result back. Everything rare is a call.
#![expect(clippy::cast_lossless, reason = "in a chain of casts each step looks the same")]

mod float;
mod system;

use std::sync::atomic::Ordering::{self, SeqCst};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, fence};

use engine::Bus;
use riscv::mmu::{Access, PAGE_SIZE};
use riscv::trap::Trap;
use riscv::{Inst, Op, int};

use crate::code::{COMPILED, CodeCache, PAGE_END, UNDECODED};
use crate::cpu::{Cpu, Reservation, StaleLookups};
use crate::jit;
use crate::jit::native::{NOWHERE, status};
use crate::storage::{Width, double, double_signed, word, word_signed};
use system::Next;

pub(crate) use float::for_compiled as execute_float;
pub(crate) use system::for_compiled as access_csr;

/// Why [`run`] came back. `Cpu::pc` is where to go on; for a trap it is the
/// instruction that trapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The budget is used up.
    Budget,
    /// `Cpu::trap` is to be taken.
    Trap,
    /// An interrupt may be takable now.
    Interrupt,
    /// S-mode called its firmware.
    Firmware,
    /// `wfi`.
    Wait,
}

/// Executes at most `budget` instructions. An `ecall` by S-mode stops it if
/// `firmware_is_internal`, else traps.
#[expect(clippy::too_many_lines, reason = "a table: one arm an instruction")]
pub(crate) fn run(
    cpu: &mut Cpu,
    code: &mut CodeCache,
    bus: &dyn Bus,
    budget: u64,
    firmware_is_internal: bool,
) -> Stop {
    let mut end = cpu.retired.wrapping_add(budget);
    let mut left = budget;
    let stop = 'page: loop {
        let pc = cpu.pc;
        let slot = match code.enter(cpu, pc) {
            Ok(slot) => slot,
            Err(trap) => {
                let _ = cpu.raise(trap);
                break 'page Stop::Trap;
            }
        };
        let page = pc & !(PAGE_SIZE - 1);
        let mut off = pc & (PAGE_SIZE - 2);
        if code.at_mut(slot).warm(off) {
            code.compile(cpu, slot, pc);
        }
        let mut insts: *const Inst = code.at(slot).insts().as_ptr();

        'inst: loop {
            if left == 0 {
                cpu.pc = page.wrapping_add(off);
                break 'page Stop::Budget;
            }
            left -= 1;
            // SAFETY: `off` is even and at most a page plus 2: it starts
            // inside the page, jumps are made even and checked to stay inside,
            // and at or past the page's end there are only markers, which
            // leave. So the entry, 8 bytes for each 2 of code, is one of
            // `CodePage::insts`. The page is boxed and only `decode` below
            // changes it, after which `insts` is made anew.
            let mut inst = unsafe { *insts.byte_add((off * 4) as usize) };

            'again: loop {
                // The instruction traps.
                macro_rules! trap {
                    () => {{
                        left += 1;
                        cpu.pc = page.wrapping_add(off);
                        break 'page Stop::Trap;
                    }};
                }
                macro_rules! attempt {
                    ($result:expr) => {
                        match $result {
                            Ok(value) => value,
                            Err(_) => trap!(),
                        }
                    };
                }
                macro_rules! rs1 {
                    () => {
                        cpu.x[usize::from(inst.rs1)]
                    };
                }
                macro_rules! rs2 {
                    () => {
                        cpu.x[usize::from(inst.rs2())]
                    };
                }
                macro_rules! imm {
                    () => {
                        i64::from(inst.imm) as u64
                    };
                }
                macro_rules! set {
                    ($value:expr) => {
                        cpu.x[usize::from(inst.rd)] = $value
                    };
                }
                // `f(rs1, rs2)` and `f(rs1, imm)`.
                macro_rules! reg {
                    ($f:expr) => {{
                        let f = $f;
                        set!(f(rs1!(), rs2!()))
                    }};
                }
                macro_rules! reg_imm {
                    ($f:expr) => {{
                        let f = $f;
                        set!(f(rs1!(), imm!()))
                    }};
                }
                macro_rules! unary {
                    ($f:expr) => {{
                        let f = $f;
                        set!(f(rs1!()))
                    }};
                }
                macro_rules! jump {
                    ($offset:expr) => {{
                        off = $offset & !1;
                        if off < PAGE_SIZE {
                            if code.at_mut(slot).warm(off) {
                                code.compile(cpu, slot, page | off);
                                insts = code.at(slot).insts().as_ptr();
                            }
                            continue 'inst;
                        }
                        cpu.pc = page.wrapping_add(off);
                        continue 'page;
                    }};
                }
                macro_rules! branch {
                    ($taken:expr) => {
                        if $taken {
                            jump!(off.wrapping_add(imm!()));
                        }
                    };
                }
                macro_rules! load {
                    ($width:ty) => {{
                        let address = rs1!().wrapping_add(imm!());
                        match cpu.tlb.read(address, <$width>::SIZE) {
                            // SAFETY: the TLB gives host addresses of guest
                            // storage, aligned as asked.
                            Some(host) => unsafe { <$width>::load(host) }.widen(),
                            None => attempt!(cpu.load_slowly::<$width>(address, bus)),
                        }
                    }};
                }
                macro_rules! store {
                    ($width:ty, $value:expr) => {{
                        let address = rs1!().wrapping_add(imm!());
                        let value = $value;
                        match cpu.tlb.write(address, <$width>::SIZE) {
                            // SAFETY: as for loads.
                            Some(host) => unsafe {
                                <$width>::store(host, <$width>::narrow(value));
                            },
                            None => attempt!(cpu.store_slowly::<$width>(address, value, bus)),
                        }
                    }};
                }
                macro_rules! amo {
                    ($size:literal, $access:ident, $int:ty, $f:expr) => {{
                        let address = rs1!();
                        let host = match cpu.tlb.write(address, $size) {
                            Some(host) => host,
                            None => attempt!(cpu.locate_atomic(address, $size, Access::Store)),
                        };
                        let operand = rs2!() as $int;
                        // SAFETY: the TLB or `locate_atomic` gave the host
                        // address of guest storage, aligned.
                        let cell = unsafe { $access(host) };
                        let f = $f;
                        let old = f(cell, operand);
                        set!(sign_extend::<$size>(old as u64))
                    }};
                }
                macro_rules! load_reserved {
                    ($width:ty) => {{
                        let address = rs1!();
                        let host = match cpu.tlb.read(address, <$width>::SIZE) {
                            Some(host) => host,
                            None => {
                                attempt!(cpu.locate_atomic(address, <$width>::SIZE, Access::Load))
                            }
                        };
                        // SAFETY: as for AMOs.
                        let value = unsafe { <$width>::load(host) }.widen();
                        fence(Ordering::Acquire);
                        cpu.reservation = Reservation { host, size: <$width>::SIZE, value };
                        set!(sign_extend_of::<$width>(value))
                    }};
                }
                macro_rules! store_conditional {
                    ($size:literal, $access:ident, $int:ty) => {{
                        let address = rs1!();
                        let host = match cpu.tlb.write(address, $size) {
                            Some(host) => host,
                            None => attempt!(cpu.locate_atomic(address, $size, Access::Store)),
                        };
                        let held = std::mem::replace(&mut cpu.reservation, Reservation::NONE);
                        let stored = held.host == host && held.size == $size && {
                            let (old, new) = (held.value as $int, rs2!() as $int);
                            // SAFETY: as for AMOs.
                            let cell = unsafe { $access(host) };
                            cell.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
                        };
                        set!(u64::from(!stored))
                    }};
                }
                // Illegal in the present state of the hart.
                macro_rules! illegal {
                    () => {{
                        let bits = code.encoding(cpu, slot, page.wrapping_add(off));
                        let _ = cpu.raise(Trap::illegal(bits));
                        trap!();
                    }};
                }
                macro_rules! fp_enabled {
                    () => {
                        if !cpu.csrs.fp_enabled() {
                            illegal!();
                        }
                    };
                }

                match inst.op {
                    Op::Lui => set!(imm!()),
                    Op::Auipc => set!(page.wrapping_add(off).wrapping_add(imm!())),
                    Op::Jal => {
                        set!(page.wrapping_add(off).wrapping_add(inst.len()));
                        jump!(off.wrapping_add(imm!()));
                    }
                    Op::Jalr => {
                        let target = rs1!().wrapping_add(imm!()) & !1;
                        set!(page.wrapping_add(off).wrapping_add(inst.len()));
                        jump!(target.wrapping_sub(page));
                    }
                    Op::Beq => branch!(rs1!() == rs2!()),
                    Op::Bne => branch!(rs1!() != rs2!()),
                    Op::Blt => branch!((rs1!() as i64) < rs2!() as i64),
                    Op::Bge => branch!(rs1!() as i64 >= rs2!() as i64),
                    Op::Bltu => branch!(rs1!() < rs2!()),
                    Op::Bgeu => branch!(rs1!() >= rs2!()),

                    Op::Lb => set!(load!(u8) as i8 as i64 as u64),
                    Op::Lh => set!(load!(u16) as i16 as i64 as u64),
                    Op::Lw => set!(load!(u32) as i32 as i64 as u64),
                    Op::Ld => set!(load!(u64)),
                    Op::Lbu => set!(load!(u8)),
                    Op::Lhu => set!(load!(u16)),
                    Op::Lwu => set!(load!(u32)),
                    Op::Sb => store!(u8, rs2!()),
                    Op::Sh => store!(u16, rs2!()),
                    Op::Sw => store!(u32, rs2!()),
                    Op::Sd => store!(u64, rs2!()),

                    Op::Illegal => match inst.rd {
                        UNDECODED => match code.decode(cpu, slot, page.wrapping_add(off)) {
                            Ok(decoded) => {
                                insts = code.at(slot).insts().as_ptr();
                                inst = decoded;
                                continue 'again;
                            }
                            Err(trap) => {
                                let _ = cpu.raise(trap);
                                trap!();
                            }
                        },
                        PAGE_END => {
                            left += 1;
                            cpu.pc = page.wrapping_add(off);
                            continue 'page;
                        }
                        COMPILED if cpu.native.bypass == page.wrapping_add(off) => {
                            cpu.native.bypass = NOWHERE;
                            inst = code.plain(slot, off);
                            continue 'again;
                        }
                        COMPILED => {
                            left += 1;
                            let retired = end.wrapping_sub(left);
                            let pc = page.wrapping_add(off);
                            cpu.pc = pc;
                            let Some((units, at)) = code.unit(cpu, inst.imm, pc) else {
                                cpu.native.bypass = pc;
                                continue 'inst;
                            };
                            let done = jit::enter(units, cpu, at, pc, retired, left);
                            left -= done.cost;
                            end = retired.wrapping_add(done.retired).wrapping_add(left);
                            if cpu.stale != StaleLookups::None {
                                code.forget_stale(cpu);
                            }
                            match done.status {
                                status::TRAP => break 'page Stop::Trap,
                                status::INTERRUPT => break 'page Stop::Interrupt,
                                status::INTERPRET => cpu.native.bypass = cpu.pc,
                                _ => {}
                            }
                            continue 'page;
                        }
                        _ => {
                            let _ = cpu.raise(Trap::illegal(inst.imm as u32));
                            trap!();
                        }
                    },
                    Op::Addi => set!(rs1!().wrapping_add(imm!())),
                    Op::Slti => set!(u64::from((rs1!() as i64) < imm!() as i64)),
                    Op::Sltiu => set!(u64::from(rs1!() < imm!())),
                    Op::Xori => set!(rs1!() ^ imm!()),
                    Op::Ori => set!(rs1!() | imm!()),
                    Op::Andi => set!(rs1!() & imm!()),
                    Op::Slli => reg_imm!(int::sll),
                    Op::Srli => reg_imm!(int::srl),
                    Op::Srai => reg_imm!(int::sra),
                    Op::Addiw => reg_imm!(int::addw),
                    Op::Slliw => reg_imm!(int::sllw),
                    Op::Srliw => reg_imm!(int::srlw),
                    Op::Sraiw => reg_imm!(int::sraw),
                    Op::Add => set!(rs1!().wrapping_add(rs2!())),
                    Op::Sub => set!(rs1!().wrapping_sub(rs2!())),
                    Op::Sll => reg!(int::sll),
                    Op::Slt => set!(u64::from((rs1!() as i64) < rs2!() as i64)),
                    Op::Sltu => set!(u64::from(rs1!() < rs2!())),
                    Op::Xor => set!(rs1!() ^ rs2!()),
                    Op::Srl => reg!(int::srl),
                    Op::Sra => reg!(int::sra),
                    Op::Or => set!(rs1!() | rs2!()),
                    Op::And => set!(rs1!() & rs2!()),
                    Op::Addw => reg!(int::addw),
                    Op::Subw => reg!(int::subw),
                    Op::Sllw => reg!(int::sllw),
                    Op::Srlw => reg!(int::srlw),
                    Op::Sraw => reg!(int::sraw),
                    Op::Fence => fence(SeqCst),
                    Op::Pause => cpu.pause(),

                    Op::Mul => reg!(int::mul),
                    Op::Mulh => reg!(int::mulh),
                    Op::Mulhsu => reg!(int::mulhsu),
                    Op::Mulhu => reg!(int::mulhu),
                    Op::Div => reg!(int::div),
                    Op::Divu => reg!(int::divu),
                    Op::Rem => reg!(int::rem),
                    Op::Remu => reg!(int::remu),
                    Op::Mulw => reg!(int::mulw),
                    Op::Divw => reg!(int::divw),
                    Op::Divuw => reg!(int::divuw),
                    Op::Remw => reg!(int::remw),
                    Op::Remuw => reg!(int::remuw),

                    Op::AddUw => reg!(int::add_uw),
                    Op::Sh1add => reg!(int::sh1add),
                    Op::Sh2add => reg!(int::sh2add),
                    Op::Sh3add => reg!(int::sh3add),
                    Op::Sh1addUw => reg!(int::sh1add_uw),
                    Op::Sh2addUw => reg!(int::sh2add_uw),
                    Op::Sh3addUw => reg!(int::sh3add_uw),
                    Op::SlliUw => reg_imm!(int::slli_uw),
                    Op::Andn => reg!(int::andn),
                    Op::Orn => reg!(int::orn),
                    Op::Xnor => reg!(int::xnor),
                    Op::Clz => unary!(int::clz),
                    Op::Clzw => unary!(int::clzw),
                    Op::Ctz => unary!(int::ctz),
                    Op::Ctzw => unary!(int::ctzw),
                    Op::Cpop => unary!(int::cpop),
                    Op::Cpopw => unary!(int::cpopw),
                    Op::Max => reg!(int::max),
                    Op::Maxu => reg!(int::maxu),
                    Op::Min => reg!(int::min),
                    Op::Minu => reg!(int::minu),
                    Op::SextB => unary!(int::sext_b),
                    Op::SextH => unary!(int::sext_h),
                    Op::ZextH => unary!(int::zext_h),
                    Op::Rol => reg!(int::rol),
                    Op::Rolw => reg!(int::rolw),
                    Op::Ror => reg!(int::ror),
                    Op::Rori => reg_imm!(int::ror),
                    Op::Roriw => reg_imm!(int::rorw),
                    Op::Rorw => reg!(int::rorw),
                    Op::OrcB => unary!(int::orc_b),
                    Op::Rev8 => unary!(int::rev8),
                    Op::Bclr => reg!(int::bclr),
                    Op::Bclri => reg_imm!(int::bclr),
                    Op::Bext => reg!(int::bext),
                    Op::Bexti => reg_imm!(int::bext),
                    Op::Binv => reg!(int::binv),
                    Op::Binvi => reg_imm!(int::binv),
                    Op::Bset => reg!(int::bset),
                    Op::Bseti => reg_imm!(int::bset),

                    Op::LrW => load_reserved!(u32),
                    Op::LrD => load_reserved!(u64),
                    Op::ScW => store_conditional!(4, word, u32),
                    Op::ScD => store_conditional!(8, double, u64),
                    Op::AmoswapW => amo!(4, word, u32, |m: &AtomicU32, v| m.swap(v, SeqCst)),
                    Op::AmoaddW => amo!(4, word, u32, |m: &AtomicU32, v| m.fetch_add(v, SeqCst)),
                    Op::AmoxorW => amo!(4, word, u32, |m: &AtomicU32, v| m.fetch_xor(v, SeqCst)),
                    Op::AmoandW => amo!(4, word, u32, |m: &AtomicU32, v| m.fetch_and(v, SeqCst)),
                    Op::AmoorW => amo!(4, word, u32, |m: &AtomicU32, v| m.fetch_or(v, SeqCst)),
                    Op::AmominW => {
                        amo!(4, word_signed, i32, |m: &AtomicI32, v| m.fetch_min(v, SeqCst));
                    }
                    Op::AmomaxW => {
                        amo!(4, word_signed, i32, |m: &AtomicI32, v| m.fetch_max(v, SeqCst));
                    }
                    Op::AmominuW => amo!(4, word, u32, |m: &AtomicU32, v| m.fetch_min(v, SeqCst)),
                    Op::AmomaxuW => amo!(4, word, u32, |m: &AtomicU32, v| m.fetch_max(v, SeqCst)),
                    Op::AmoswapD => amo!(8, double, u64, |m: &AtomicU64, v| m.swap(v, SeqCst)),
                    Op::AmoaddD => amo!(8, double, u64, |m: &AtomicU64, v| m.fetch_add(v, SeqCst)),
                    Op::AmoxorD => amo!(8, double, u64, |m: &AtomicU64, v| m.fetch_xor(v, SeqCst)),
                    Op::AmoandD => amo!(8, double, u64, |m: &AtomicU64, v| m.fetch_and(v, SeqCst)),
                    Op::AmoorD => amo!(8, double, u64, |m: &AtomicU64, v| m.fetch_or(v, SeqCst)),
                    Op::AmominD => {
                        amo!(8, double_signed, i64, |m: &AtomicI64, v| m.fetch_min(v, SeqCst));
                    }
                    Op::AmomaxD => {
                        amo!(8, double_signed, i64, |m: &AtomicI64, v| m.fetch_max(v, SeqCst));
                    }
                    Op::AmominuD => amo!(8, double, u64, |m: &AtomicU64, v| m.fetch_min(v, SeqCst)),
                    Op::AmomaxuD => amo!(8, double, u64, |m: &AtomicU64, v| m.fetch_max(v, SeqCst)),

                    Op::Flw => {
                        fp_enabled!();
                        cpu.f[usize::from(inst.rd & 31)] = load!(u32) | float::NAN_BOX;
                        cpu.csrs.set_fp_dirty();
                    }
                    Op::Fld => {
                        fp_enabled!();
                        cpu.f[usize::from(inst.rd & 31)] = load!(u64);
                        cpu.csrs.set_fp_dirty();
                    }
                    Op::Fsw => {
                        fp_enabled!();
                        store!(u32, cpu.f[usize::from(inst.rs2())]);
                    }
                    Op::Fsd => {
                        fp_enabled!();
                        store!(u64, cpu.f[usize::from(inst.rs2())]);
                    }
                    Op::FmaddS
                    | Op::FmsubS
                    | Op::FnmsubS
                    | Op::FnmaddS
                    | Op::FaddS
                    | Op::FsubS
                    | Op::FmulS
                    | Op::FdivS
                    | Op::FsqrtS
                    | Op::FsgnjS
                    | Op::FsgnjnS
                    | Op::FsgnjxS
                    | Op::FminS
                    | Op::FmaxS
                    | Op::FcvtWS
                    | Op::FcvtWuS
                    | Op::FcvtLS
                    | Op::FcvtLuS
                    | Op::FmvXW
                    | Op::FeqS
                    | Op::FltS
                    | Op::FleS
                    | Op::FclassS
                    | Op::FcvtSW
                    | Op::FcvtSWu
                    | Op::FcvtSL
                    | Op::FcvtSLu
                    | Op::FmvWX
                    | Op::FmaddD
                    | Op::FmsubD
                    | Op::FnmsubD
                    | Op::FnmaddD
                    | Op::FaddD
                    | Op::FsubD
                    | Op::FmulD
                    | Op::FdivD
                    | Op::FsqrtD
                    | Op::FsgnjD
                    | Op::FsgnjnD
                    | Op::FsgnjxD
                    | Op::FminD
                    | Op::FmaxD
                    | Op::FcvtSD
                    | Op::FcvtDS
                    | Op::FeqD
                    | Op::FltD
                    | Op::FleD
                    | Op::FclassD
                    | Op::FcvtWD
                    | Op::FcvtWuD
                    | Op::FcvtLD
                    | Op::FcvtLuD
                    | Op::FmvXD
                    | Op::FcvtDW
                    | Op::FcvtDWu
                    | Op::FcvtDL
                    | Op::FcvtDLu
                    | Op::FmvDX => {
                        if float::execute(cpu, inst).is_err() {
                            illegal!();
                        }
                    }
                    // System instructions, and the cache-block ones, which
                    // no mode may use here.
                    Op::Ecall
                    | Op::Ebreak
                    | Op::FenceI
                    | Op::Csrrw
                    | Op::Csrrs
                    | Op::Csrrc
                    | Op::Csrrwi
                    | Op::Csrrsi
                    | Op::Csrrci
                    | Op::Sret
                    | Op::Mret
                    | Op::Wfi
                    | Op::SfenceVma
                    | Op::CboInval
                    | Op::CboClean
                    | Op::CboFlush
                    | Op::CboZero => {
                        cpu.pc = page.wrapping_add(off);
                        cpu.retired = end.wrapping_sub(left + 1);
                        match system::execute(cpu, code, inst, firmware_is_internal) {
                            Ok(Next::Following) if cpu.stale == StaleLookups::None => {}
                            Ok(Next::Following) => {
                                code.forget_stale(cpu);
                                cpu.pc = cpu.pc.wrapping_add(4);
                                continue 'page;
                            }
                            Ok(Next::Jump) => continue 'page,
                            Ok(Next::Leave(stop)) => {
                                // A call retires no more than a trap does.
                                left += u64::from(stop == Stop::Firmware);
                                break 'page stop;
                            }
                            Err(_) => trap!(),
                        }
                    }
                }
                break 'again;
            }
            off += length(inst);
        }
    };
    cpu.retired = end.wrapping_sub(left);
    stop
}

/// [`Inst::len`] in two instructions of the host instead of five, which every
/// guest instruction waits for: a quarter more speed.
#[inline(always)]
fn length(inst: Inst) -> u64 {
    2 + 2 * u64::from(inst.rs2 < 0x80)
}

/// Sign-extends a value of `BYTES` bytes, 4 or 8.
#[inline(always)]
fn sign_extend<const BYTES: u64>(value: u64) -> u64 {
    if BYTES == 4 { value as i32 as i64 as u64 } else { value }
}

#[inline(always)]
fn sign_extend_of<T: Width>(value: u64) -> u64 {
    if T::SIZE == 4 { value as i32 as i64 as u64 } else { value }
}
