//! The units that one vCPU knows.

use std::sync::Arc;

use super::arena::Arena;
use super::compiler::{Compiler, Inbox, Unit};
use super::runtime::disarm;
use crate::cpu::Cpu;

/// Instructions compiled code executes while the interpreter would execute
/// one: what a budget of the interpreter's is worth to it.
const SPEED: u64 = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Units {
    pub(crate) compiler: Arc<Compiler>,
    pub(crate) inbox: Arc<Inbox>,
    /// Where units begin, by number.
    codes: Vec<usize>,
    /// Keeps all of them mapped.
    arena: Option<Arc<Arena>>,
}

impl Units {
    pub(crate) fn new(compiler: Arc<Compiler>) -> Self {
        Self { compiler, inbox: Arc::default(), codes: Vec::new(), arena: None }
    }

    /// Whether `unit` lies where the present ones do; if not they have to be
    /// forgotten before it is added.
    pub(crate) fn is_neighbour(&self, unit: &Unit) -> bool {
        self.arena.as_ref().is_none_or(|arena| Arc::ptr_eq(arena, &unit.arena))
    }

    /// Forgets all units.
    pub(crate) fn clear(&mut self) {
        self.codes.clear();
        self.arena = None;
    }

    /// Adds `unit`, a neighbour of the others, and numbers it.
    pub(crate) fn add(&mut self, unit: Unit) -> i32 {
        self.codes.push(unit.code);
        self.arena = Some(unit.arena);
        // An arena has fewer units than pages.
        (self.codes.len() - 1) as i32
    }

    /// Where unit `number` begins.
    #[inline(always)]
    pub(crate) fn code(&self, number: i32) -> Option<usize> {
        self.codes.get(number as usize).copied()
    }
}

/// What an execution of compiled code came to.
pub(crate) struct Outcome {
    /// One of [`status`](super::native::status).
    pub(crate) status: u64,
    /// Instructions retired.
    pub(crate) retired: u64,
    /// What that cost of the interpreter's budget, at most all of it.
    pub(crate) cost: u64,
}

/// Executes the unit at `code` for `pc` and what it leads to, for a budget
/// that is worth `left` of the interpreter's. `retired` is the count so far.
#[inline(always)]
pub(crate) fn enter(
    units: &Units,
    cpu: &mut Cpu,
    code: usize,
    pc: u64,
    retired: u64,
    left: u64,
) -> Outcome {
    let budget = left * SPEED;
    cpu.native.end = retired.wrapping_add(budget);
    let entrance = units.compiler.stubs().entrance();
    // SAFETY: `code` is a unit in the arena that `units` holds, and units jump
    // only to where the jump cache says, which is units in the same arena. They
    // reach the hart and, through the TLB, guest storage, and nothing else; the
    // runtime they call gets its reference from this one.
    let status = unsafe { entrance(cpu, budget as i64, pc, code as u64) };
    disarm(cpu);
    let executed = (budget as i64).wrapping_sub(cpu.native.left) as u64;
    Outcome { status, retired: executed, cost: executed.div_ceil(SPEED).min(left) }
}
