//! Loads and stores, through the TLB.
//!
//! What the TLB does not have the runtime looks for in the page tables. Where it
//! finds no storage, or the bytes lie in two pages, the interpreter executes the
//! instruction, and raises what there is to raise.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, InstBuilder, Value, types};
use riscv::mmu::PAGE_SIZE;
use riscv::{Inst, Op};
use types::{F32, F64, I64};

use super::super::native;
use super::super::runtime::{ALIGNED, FOR_STORE};
use super::super::stubs::Helper;
use super::groups::Group;
use super::{Unit, memory};
use crate::tlb;

/// Which of the TLB's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Read,
    Write,
}

/// What has to hold of an address besides a translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// All bytes lie in one page.
    Page,
    /// It is a multiple of the size.
    Aligned,
}

/// Bytes that are accessed together, `size` of them from `base` and `offset` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) table: Table,
    pub(super) base: Value,
    pub(super) offset: i64,
    pub(super) size: i64,
}

impl Unit<'_> {
    /// Starts on the block of `block`, all of whose predecessors are there.
    pub(super) fn begin(&mut self, block: ir::Block) {
        self.builder.seal_block(block);
        self.builder.switch_to_block(block);
    }

    pub(super) fn sum(&mut self, base: Value, offset: i64) -> Value {
        if offset == 0 {
            return base;
        }
        let offset = self.number(offset);
        self.builder.ins().iadd(base, offset)
    }

    /// The host address of what `inst` accesses, `size` bytes, and what is to be added.
    fn reach(&mut self, inst: Inst, size: i64, table: Table) -> (Value, i32) {
        let (base, distance) = self.x_sum(inst.rs1);
        let distance = distance + i64::from(inst.imm);
        let own = Stretch { table, base, offset: distance, size };
        let addend = match self.groups.of(self.at) {
            None => self.find(own, None).0,
            Some((_, _, Group { addend: Some(addend), .. })) => self.follow(addend, own),
            Some((group, at, member)) => {
                let table = if member.stores { Table::Write } else { Table::Read };
                let offset = distance - (at - member.least);
                let all = Stretch { table, base, offset, size: member.span() };
                let (addend, shared) = self.find(all, Some(own));
                self.groups.found(group, shared);
                addend
            }
        };
        match i32::try_from(distance) {
            Ok(offset) => (self.builder.ins().iadd(base, addend), offset),
            Err(_) => {
                let address = self.sum(base, distance);
                (self.builder.ins().iadd(address, addend), 0)
            }
        }
    }

    /// What to add to an address in `own`: `shared`, or what is found if that is 0.
    fn follow(&mut self, shared: Value, own: Stretch) -> Value {
        let (slow, on) = (self.cold_block(), self.builder.create_block());
        let addend = self.builder.append_block_param(on, I64);
        self.builder.ins().brif(shared, on, &[shared.into()], slow, &[]);
        self.begin(slow);
        let before = std::mem::replace(&mut self.rarely, true);
        let found = self.look_up(own, Within::Page);
        self.rarely = before;
        self.builder.ins().jump(on, &[found.into()]);
        self.begin(on);
        addend
    }

    /// Whether the TLB has `stretch`, and the entry that would.
    fn probe(&mut self, stretch: Stretch, within: Within) -> (Value, Value) {
        let Stretch { table, base, offset, size } = stretch;
        let address = self.sum(base, offset);
        let set = self
            .fetch(I64, if table == Table::Read { native::READ_SET } else { native::WRITE_SET });
        let (shift, mask) = (self.number(tlb::INDEX_SHIFT), self.number(tlb::INDEX_MASK));
        let index = self.builder.ins().ushr(address, shift);
        let index = self.builder.ins().band(index, mask);
        let entry = self.builder.ins().iadd(set, index);
        let page = !(PAGE_SIZE as i64 - 1);
        let probe = match within {
            // The page of the last byte; the entry is that of the first.
            Within::Page if size > 1 => {
                let last = self.sum(base, offset + size - 1);
                let page = self.number(page);
                self.builder.ins().band(last, page)
            }
            _ => {
                let mask = self.number(page | (size - 1));
                self.builder.ins().band(address, mask)
            }
        };
        let tag = self.builder.ins().load(I64, memory(), entry, tlb::ENTRY_TAG);
        (self.builder.ins().icmp(IntCC::Equal, probe, tag), entry)
    }

    /// Begins on what is done if `hit`; the blocks for the other case and for after.
    fn if_hit(&mut self, hit: Value) -> (ir::Block, ir::Block) {
        let (fast, slow) = (self.builder.create_block(), self.cold_block());
        let on = self.builder.create_block();
        if self.rarely {
            self.builder.set_cold_block(fast);
            self.builder.set_cold_block(on);
        }
        self.builder.ins().brif(hit, fast, &[], slow, &[]);
        self.begin(fast);
        (slow, on)
    }

    /// What to add to an address in `stretch` to get the host's, in a new block; where
    /// there is nothing the unit is left.
    pub(super) fn look_up(&mut self, stretch: Stretch, within: Within) -> Value {
        let (hit, entry) = self.probe(stretch, within);
        let (slow, on) = self.if_hit(hit);
        let found = self.builder.append_block_param(on, I64);
        let addend = self.builder.ins().load(I64, memory(), entry, tlb::ENTRY_ADDEND);
        self.builder.ins().jump(on, &[addend.into()]);
        self.begin(slow);
        let status = self.walk(stretch, within);
        self.unless(status);
        if let Some(block) = self.builder.current_block() {
            self.builder.set_cold_block(block);
        }
        let addend = self.fetch(I64, native::VALUE);
        self.builder.ins().jump(on, &[addend.into()]);
        self.begin(on);
        found
    }

    /// The same for `own` and for `all`, which holds it; the latter is 0 if it lies in
    /// two pages or may not be accessed yet as its most demanding part will be.
    pub(super) fn look_up_all(&mut self, all: Stretch, own: Stretch) -> (Value, Value) {
        let (hit, entry) = self.probe(all, Within::Page);
        let (slow, on) = self.if_hit(hit);
        let found = [0, 1].map(|_| self.builder.append_block_param(on, I64));
        let addend = self.builder.ins().load(I64, memory(), entry, tlb::ENTRY_ADDEND);
        self.builder.ins().jump(on, &[addend.into(), addend.into()]);
        self.begin(slow);
        // A load must not say that its page is stored into, though a store follows: only
        // an access like the most demanding of all may have it looked for.
        if all.table == own.table {
            let status = self.walk(all, Within::Page);
            let (alone, together) = (self.cold_block(), self.cold_block());
            self.builder.ins().brif(status, alone, &[], together, &[]);
            self.begin(together);
            let addend = self.fetch(I64, native::VALUE);
            self.builder.ins().jump(on, &[addend.into(), addend.into()]);
            self.begin(alone);
        }
        let before = std::mem::replace(&mut self.rarely, true);
        let addend = self.look_up(own, Within::Page);
        self.rarely = before;
        let none = self.number(0);
        self.builder.ins().jump(on, &[addend.into(), none.into()]);
        self.begin(on);
        (found[0], found[1])
    }

    /// Has the runtime look for `stretch`; whether it found nothing.
    fn walk(&mut self, stretch: Stretch, within: Within) -> Value {
        let store = if stretch.table == Table::Write { FOR_STORE } else { 0 };
        let aligned = if within == Within::Aligned { ALIGNED } else { 0 };
        let address = self.sum(stretch.base, stretch.offset);
        let how = self.number(stretch.size | (store | aligned) as i64);
        self.call(Helper::Find, &[address, how]);
        self.fetch(I64, native::STATUS)
    }

    pub(super) fn load(&mut self, inst: Inst) {
        let size = match inst.op {
            Op::Lb | Op::Lbu => 1,
            Op::Lh | Op::Lhu => 2,
            Op::Lw | Op::Lwu => 4,
            _ => 8,
        };
        let (host, offset) = self.reach(inst, size, Table::Read);
        let ins = self.builder.ins();
        let value = match inst.op {
            Op::Lb => ins.sload8(I64, memory(), host, offset),
            Op::Lbu => ins.uload8(I64, memory(), host, offset),
            Op::Lh => ins.sload16(I64, memory(), host, offset),
            Op::Lhu => ins.uload16(I64, memory(), host, offset),
            Op::Lw => ins.sload32(memory(), host, offset),
            Op::Lwu => ins.uload32(memory(), host, offset),
            _ => ins.load(I64, memory(), host, offset),
        };
        self.set_x(inst.rd, value);
    }

    pub(super) fn load_double(&mut self, inst: Inst) {
        let (host, offset) = self.reach(inst, 8, Table::Read);
        let value = self.builder.ins().load(F64, memory(), host, offset);
        self.set_f(inst.rd, value);
    }

    pub(super) fn load_single(&mut self, inst: Inst) {
        let (host, offset) = self.reach(inst, 4, Table::Read);
        let value = self.builder.ins().load(F32, memory(), host, offset);
        self.set_single(inst.rd, value);
    }

    pub(super) fn store(&mut self, inst: Inst) {
        let value = self.x(inst.rs2());
        let size = match inst.op {
            Op::Sb => 1,
            Op::Sh => 2,
            Op::Sw => 4,
            _ => 8,
        };
        self.store_bits(inst, size, value);
    }

    /// Stores the low `size` bytes of `value`.
    pub(super) fn store_bits(&mut self, inst: Inst, size: i64, value: Value) {
        let (host, offset) = self.reach(inst, size, Table::Write);
        let ins = self.builder.ins();
        match size {
            1 => ins.istore8(memory(), value, host, offset),
            2 => ins.istore16(memory(), value, host, offset),
            4 => ins.istore32(memory(), value, host, offset),
            _ => ins.store(memory(), value, host, offset),
        };
    }

    pub(super) fn store_double(&mut self, inst: Inst) {
        let value = self.settled(inst.rs2());
        let (host, offset) = self.reach(inst, 8, Table::Write);
        self.builder.ins().store(memory(), value, host, offset);
    }
}
