//! Accesses that share one look-up: those of a block by way of the same value
//! of the same register, near enough to each other to lie in one page.
//!
//! The first looks up the whole stretch. If that lies in one page that may be
//! accessed as the most demanding of the group wants, the others need no
//! look-up; else each goes the slow way. A translation may be kept so long:
//! it is forgotten by fences, which no unit executes and which other harts'
//! requests make only where a unit has been left.

use std::collections::BTreeMap;

use cranelift_codegen::ir::Value;
use riscv::{Inst, Op};

/// Bytes that a group spans, at most: far below a page, so that most stretches
/// lie in one.
const MAX_SPAN: i64 = 512;

/// A group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// The least offset from the register.
    pub(super) least: i64,
    end: i64,
    /// Whether one of the accesses is a store.
    pub(super) stores: bool,
    /// The host address of what is at `least`, 0 if unknown there; none before
    /// the first access.
    pub(super) host: Option<Value>,
    members: usize,
}

impl Group {
    /// Bytes from the first to the last.
    pub(super) fn span(&self) -> i64 {
        self.end - self.least
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: Vec<Group>,
    /// By the offset of the instruction.
    members: BTreeMap<i64, usize>,
}

impl Groups {
    /// The groups among the instructions of a block.
    pub(super) fn new(insts: &[(i64, Inst)]) -> Self {
        let mut groups = Self::default();
        // The open group of each register.
        let mut open = [None; 32];
        for (at, inst) in insts {
            if let Some((size, stores)) = access(inst.op) {
                groups.add(*at, *inst, size, stores, &mut open);
            }
            for number in super::super::operands::Operands::of(*inst).writes.iter() {
                if number < 32 {
                    open[number] = None;
                }
            }
        }
        let Self { groups: all, members } = &mut groups;
        members.retain(|_, group| all[*group].members > 1);
        groups
    }

    fn add(
        &mut self,
        at: i64,
        inst: Inst,
        size: i64,
        stores: bool,
        open: &mut [Option<usize>; 32],
    ) {
        let offset = i64::from(inst.imm);
        let register = usize::from(inst.rs1 & 31);
        let index = open[register].filter(|index| {
            let group: Group = self.groups[*index];
            group.end.max(offset + size) - group.least.min(offset) <= MAX_SPAN
        });
        let index = index.unwrap_or_else(|| {
            self.groups.push(Group {
                least: offset,
                end: offset + size,
                stores,
                host: None,
                members: 0,
            });
            self.groups.len() - 1
        });
        let group = &mut self.groups[index];
        group.least = group.least.min(offset);
        group.end = group.end.max(offset + size);
        group.stores |= stores;
        group.members += 1;
        open[register] = Some(index);
        self.members.insert(at, index);
    }

    /// The group of the access at `at`, with its number.
    pub(super) fn of(&self, at: i64) -> Option<(usize, Group)> {
        self.members.get(&at).map(|index| (*index, self.groups[*index]))
    }

    /// The first access of `group` found `host`.
    pub(super) fn found(&mut self, group: usize, host: Value) {
        self.groups[group].host = Some(host);
    }
}

/// Size, and whether it is a store, of a plain access.
fn access(op: Op) -> Option<(i64, bool)> {
    Some(match op {
        Op::Lb | Op::Lbu => (1, false),
        Op::Lh | Op::Lhu => (2, false),
        Op::Lw | Op::Lwu | Op::Flw => (4, false),
        Op::Ld | Op::Fld => (8, false),
        Op::Sb => (1, true),
        Op::Sh => (2, true),
        Op::Sw | Op::Fsw => (4, true),
        Op::Sd | Op::Fsd => (8, true),
        _ => return None,
    })
}
