//! Accesses that share one look-up: those of a block by way of one pointer and
//! of what is computed from it by adding numbers (its root is what it was
//! before that), near enough to each other to lie in one page.
//!
//! The first looks up the whole stretch. If that lies in one page that may be
//! accessed as the most demanding of the group wants, the others need no
//! look-up but a look at that; else each goes its own way. A translation may be kept so long:
//! it is forgotten by fences, which no unit executes and which other harts'
//! requests make only where a unit has been left.

use std::collections::BTreeMap;

use cranelift_codegen::ir::Value;
use riscv::{Inst, Op};

use super::super::operands::Operands;

/// Bytes that a group spans, at most: far below a page, so that most stretches
/// lie in one.
const MAX_SPAN: i64 = 256;

/// A group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// The least offset from the root.
    pub(super) least: i64,
    end: i64,
    /// Whether one of the accesses is a store.
    pub(super) stores: bool,
    /// What the host addresses are more, 0 if unknown there; none before the first
    /// access.
    pub(super) addend: Option<Value>,
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
    /// Group and offset from its root, by the offset of the instruction.
    members: BTreeMap<i64, (usize, i64)>,
}

/// Where a register of the block points: a value that nobody knows and an
/// offset from it.
#[derive(Debug, Clone, Copy)]
struct Pointer {
    root: usize,
    offset: i64,
}

/// Pointers in registers, instruction by instruction.
struct Pointers {
    registers: [Pointer; 32],
    roots: usize,
}

impl Pointers {
    fn new() -> Self {
        Self { registers: std::array::from_fn(|root| Pointer { root, offset: 0 }), roots: 32 }
    }

    fn of(&self, register: u8) -> Pointer {
        self.registers[usize::from(register & 31)]
    }

    fn execute(&mut self, inst: Inst) {
        let pointer = match (inst.op, inst.rs1, inst.rs2()) {
            (Op::Addi, 1.., _) => {
                let Pointer { root, offset } = self.of(inst.rs1);
                Some(Pointer { root, offset: offset + i64::from(inst.imm) })
            }
            (Op::Add, 0, from) | (Op::Add, from, 0) => Some(self.of(from)),
            _ => None,
        };
        for number in Operands::of(inst).writes.iter().filter(|number| *number < 32) {
            self.registers[number] = pointer.unwrap_or(Pointer { root: self.roots, offset: 0 });
            self.roots += 1;
        }
    }
}

impl Groups {
    /// The groups among the instructions of a block.
    pub(super) fn new(insts: &[(i64, Inst)]) -> Self {
        let mut groups = Self::default();
        let mut pointers = Pointers::new();
        // The open group of each root.
        let mut open = BTreeMap::new();
        for (at, inst) in insts {
            if let Some((size, stores)) = access(inst.op) {
                let Pointer { root, offset } = pointers.of(inst.rs1);
                let offset = offset + i64::from(inst.imm);
                let group = groups.join(open.get(&root).copied(), offset, size, stores);
                open.insert(root, group);
                groups.members.insert(*at, (group, offset));
            }
            pointers.execute(*inst);
        }
        let Self { groups: all, members } = &mut groups;
        members.retain(|_, (group, _)| all[*group].members > 1);
        groups
    }

    /// Adds an access to `group`, if that is near enough, or else to a new one.
    fn join(&mut self, group: Option<usize>, offset: i64, size: i64, stores: bool) -> usize {
        let index = group.filter(|index| {
            let group = self.groups[*index];
            group.end.max(offset + size) - group.least.min(offset) <= MAX_SPAN
        });
        let index = index.unwrap_or_else(|| {
            let (least, end) = (offset, offset + size);
            self.groups.push(Group { least, end, stores, addend: None, members: 0 });
            self.groups.len() - 1
        });
        let group = &mut self.groups[index];
        group.least = group.least.min(offset);
        group.end = group.end.max(offset + size);
        group.stores |= stores;
        group.members += 1;
        index
    }

    /// The number of the group of the access at `at`, where it accesses and
    /// the group.
    pub(super) fn of(&self, at: i64) -> Option<(usize, i64, Group)> {
        self.members.get(&at).map(|(index, offset)| (*index, *offset, self.groups[*index]))
    }

    /// The first access of `group` found `addend`.
    pub(super) fn found(&mut self, group: usize, addend: Value) {
        self.groups[group].addend = Some(addend);
    }
}

/// Size, and whether it is a store, of a plain access.
pub(super) fn access(op: Op) -> Option<(i64, bool)> {
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
