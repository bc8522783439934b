//! How compiled code keeps count of the instructions left to execute.
//!
//! To subtract each block's instructions would make every block wait for the
//! one before. Instead each block has a constant, its *potential*: what is left
//! at its start is the counter and that. The counter has to change only on an
//! edge whose ends' potentials do not differ by the instructions between them,
//! and the potentials are chosen so that most edges forwards need no change.

use std::collections::VecDeque;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};

use super::super::region::Region;
use super::Unit;

/// The potential of each block of `region`; the entry's is 0.
pub(super) fn potentials(region: &Region) -> Vec<i64> {
    let mut potentials = vec![None; region.blocks.len()];
    let mut work = VecDeque::from([(0, 0)]);
    while let Some((index, potential)) = work.pop_front() {
        if potentials[index].is_some() {
            continue;
        }
        potentials[index] = Some(potential);
        let block = &region.blocks[index];
        let after = potential - block.insts.len() as i64;
        let mut next = region.successors(block);
        // What follows in storage mostly follows in time.
        next.sort_by_key(|next| region.blocks[*next].start <= block.start);
        work.extend(next.into_iter().map(|next| (next, after)));
    }
    potentials.into_iter().map(|potential| potential.unwrap_or(0)).collect()
}

impl Unit<'_> {
    /// What the counter lacks to what is left before the present instruction.
    fn lack(&self) -> i64 {
        let length = self.region.blocks[self.index].insts.len() as i64;
        self.potentials[self.index] - length + self.ahead
    }

    /// Instructions left before the present one.
    pub(super) fn left_here(&mut self) -> Value {
        let counter = self.builder.use_var(self.counter);
        let lack = self.lack();
        self.sum(counter, lack)
    }

    /// Whether nothing is left before the present instruction.
    pub(super) fn is_spent(&mut self) -> Value {
        let counter = self.builder.use_var(self.counter);
        let limit = self.number(-self.lack());
        self.builder.ins().icmp(IntCC::SignedLessThanOrEqual, counter, limit)
    }

    /// What the counter has to change by on the way from here to block `to`.
    pub(super) fn change_to(&self, to: usize) -> i64 {
        self.lack() - self.potentials[to]
    }

    /// Changes the counter for the way to block `to`, and ends the present
    /// host block.
    pub(super) fn jump_to(&mut self, to: usize) {
        let change = self.change_to(to);
        if change != 0 {
            let counter = self.builder.use_var(self.counter);
            let counter = self.sum(counter, change);
            self.builder.def_var(self.counter, counter);
        }
        self.builder.ins().jump(self.blocks[to], &[]);
    }
}
