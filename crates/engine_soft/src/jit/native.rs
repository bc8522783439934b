//! What compiled code shares with the code that enters it and that it calls.

use std::mem::offset_of;

use super::jumps::Jumps;
use crate::cpu::{Cpu, Reservation};
use crate::tlb::Tlb;

/// Why compiled code came back, in [`Native::status`] and as its result.
pub(crate) mod status {
    /// Go on at `Cpu::pc`, wherever that is.
    pub(crate) const GO_ON: u64 = 0;
    /// `Cpu::trap` is to be taken.
    pub(crate) const TRAP: u64 = 1;
    /// The instruction at `Cpu::pc` is for the interpreter.
    pub(crate) const INTERPRET: u64 = 2;
    /// An interrupt may be takable now.
    pub(crate) const INTERRUPT: u64 = 3;
    /// Go on in Rust: translations changed.
    pub(crate) const LEAVE: u64 = 4;
}

/// No program counter is odd.
pub(crate) const NOWHERE: u64 = u64::MAX;

/// See the module. Fields that compiled code reaches have an offset below.
#[derive(Debug)]
pub(crate) struct Native {
    /// Instructions left to execute; below 0 if a block went beyond.
    pub(crate) left: i64,
    /// [`Cpu::retired`] when `left` reaches 0.
    pub(crate) end: u64,
    /// The table of [`Jumps`] in force.
    pub(crate) table: u64,
    /// What a called function found.
    pub(crate) value: u64,
    /// How a called function ended: one of [`status`].
    pub(crate) status: u64,
    /// 1 while the host's floating-point flags are the guest's.
    pub(crate) float_armed: u64,
    /// Where the interpreter is to execute the next instruction though a unit
    /// begins there; nowhere if odd.
    pub(crate) bypass: u64,
    pub(crate) jumps: Jumps,
}

impl Native {
    pub(crate) fn new() -> Self {
        Self {
            left: 0,
            end: 0,
            table: 0,
            value: 0,
            status: status::GO_ON,
            float_armed: 0,
            bypass: NOWHERE,
            jumps: Jumps::new(),
        }
    }
}

const fn native(offset: usize) -> i32 {
    (offset_of!(Cpu, native) + offset) as i32
}

/// Byte offsets from the start of [`Cpu`].
pub(crate) const PC: i32 = offset_of!(Cpu, pc) as i32;
pub(crate) const LEFT: i32 = native(offset_of!(Native, left));
pub(crate) const TABLE: i32 = native(offset_of!(Native, table));
pub(crate) const VALUE: i32 = native(offset_of!(Native, value));
pub(crate) const STATUS: i32 = native(offset_of!(Native, status));
pub(crate) const FLOAT_ARMED: i32 = native(offset_of!(Native, float_armed));
pub(crate) const READ_SET: i32 = (offset_of!(Cpu, tlb) + Tlb::READ_SET) as i32;
pub(crate) const WRITE_SET: i32 = (offset_of!(Cpu, tlb) + Tlb::WRITE_SET) as i32;
pub(crate) const RESERVED_HOST: i32 =
    (offset_of!(Cpu, reservation) + offset_of!(Reservation, host)) as i32;
pub(crate) const RESERVED_SIZE: i32 =
    (offset_of!(Cpu, reservation) + offset_of!(Reservation, size)) as i32;
pub(crate) const RESERVED_VALUE: i32 =
    (offset_of!(Cpu, reservation) + offset_of!(Reservation, value)) as i32;

/// Where register `number` (0 to 31 integer, 32 to 63 floating point) is.
pub(crate) fn register(number: usize) -> i32 {
    let offset = if number < 32 {
        offset_of!(Cpu, x) + number * 8
    } else {
        offset_of!(Cpu, f) + (number - 32) * 8
    };
    offset as i32
}
