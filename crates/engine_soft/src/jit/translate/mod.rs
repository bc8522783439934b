//! From a region of guest code to a function of the host.
//!
//! A unit is a function of the hart ([`Cpu`](crate::cpu::Cpu)), of how many
//! instructions are left to execute, and of the program counter, which is its
//! entry's; it is position-independent in guest and host. Guest registers that
//! it uses live in host registers from its entry on; where it is left, those
//! that changed are written home. It is left by a jump to the next unit (see
//! [`jumps`](super::jumps)) or by returning one of
//! [`status`](super::native::status).
//!
//! Each backward edge looks whether instructions are left, so a loop takes as
//! long as its budget says; how they are counted is in `budget`.

mod atomic;
mod budget;
mod control;
mod facts;
mod float;
mod groups;
mod integer;
mod memory;
mod pages;
mod settle;

use cranelift_codegen::ir::{
    self, AbiParam, InstBuilder, MemFlagsData, SigRef, Signature, Type, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use riscv::{Inst, Op};

use super::jumps;
use super::native;
use super::operands::Registers;
use super::region::{End, Region};
use super::stubs::{Helper, Stubs};
use facts::{Fact, Facts};
use groups::Groups;
use pages::Pages;
use types::{F64, I64};

/// Guest and hart memory: no access of compiled code faults in the host, and
/// the host allows misaligned ones.
pub(super) fn memory() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

/// The signature of a unit.
pub(super) fn unit_signature() -> Signature {
    let mut signature = Signature::new(CallConv::Tail);
    signature.params.extend([AbiParam::new(I64); 3]);
    signature.returns.push(AbiParam::new(I64));
    signature
}

/// What a host offers beyond the least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostFeatures {
    /// Fused multiply-add is one instruction.
    pub(crate) fma: bool,
}

/// Builds the function for `region`.
pub(super) fn translate(
    function: &mut ir::Function,
    context: &mut FunctionBuilderContext,
    region: &Region,
    stubs: &Stubs,
    features: HostFeatures,
    config: TargetFrontendConfig,
) {
    function.signature = unit_signature();
    let mut unit = Unit::new(FunctionBuilder::new(function, context), region, stubs, features);
    unit.enter();
    for index in 0..region.blocks.len() {
        unit.block(index);
    }
    unit.finish_ways_out();
    unit.builder.seal_all_blocks();
    unit.builder.finalize(config);
}

/// A function under construction.
struct Unit<'a> {
    builder: FunctionBuilder<'a>,
    region: &'a Region,
    stubs: &'a Stubs,
    features: HostFeatures,
    /// The hart, for the whole unit.
    cpu: Value,
    /// The program counter that the unit is entered with.
    entry_pc: Value,
    /// The virtual address of the page.
    page: Value,
    /// See `budget`.
    counter: Variable,
    potentials: Vec<i64>,
    registers: Vec<Variable>,
    /// Host blocks of the region's blocks.
    blocks: Vec<ir::Block>,
    /// Stores program counter and instructions left, and returns a status.
    out: ir::Block,
    /// Jumps to the unit for a program counter.
    onward: ir::Block,
    signatures: [Option<SigRef>; 6],

    // The place in the guest's code.
    index: usize,
    at: i64,
    /// Instructions from the present one to the block's end.
    ahead: i64,
    dirty: Registers,
    /// Where to leave in the present state, once made: takes offset,
    /// instructions left and status.
    exit: Option<ir::Block>,
    /// The end that all exits of the present block have in common, once made.
    exit_tail: Option<ir::Block>,
    /// What is known of integer registers.
    facts: Facts,
    /// Accesses of the block that share a look-up.
    groups: Groups,
    /// Accesses that keep the page they found.
    pages: Pages,
    /// What is translated is rarely executed.
    rarely: bool,
    /// The host's floating-point flags are known to be the guest's.
    armed: bool,
    /// Registers known to hold a single, and it.
    singles: [Option<Value>; 32],
    /// Registers that hold results of arithmetic where each block begins.
    results: Vec<Registers>,
    /// Those of the present place, which may hold another NaN than they should;
    /// see `float`.
    unsettled: Registers,
    /// Those of them whose value nothing has read yet.
    unread: Registers,
}

impl<'a> Unit<'a> {
    fn new(
        mut builder: FunctionBuilder<'a>,
        region: &'a Region,
        stubs: &'a Stubs,
        features: HostFeatures,
    ) -> Self {
        let registers = (0..64)
            .map(|number| builder.declare_var(if number < 32 { I64 } else { F64 }))
            .collect();
        let counter = builder.declare_var(I64);
        let entry = builder.create_block();
        builder.append_block_params_for_function_params(entry);
        builder.switch_to_block(entry);
        let [cpu, budget, pc] = [0, 1, 2].map(|index| builder.block_params(entry)[index]);
        builder.def_var(counter, budget);
        let offset = builder.ins().iconst(I64, region.blocks[0].start);
        let page = builder.ins().isub(pc, offset);
        let blocks = region.blocks.iter().map(|_| builder.create_block()).collect();
        let (out, onward) = (builder.create_block(), builder.create_block());
        for (block, parameters) in [(out, 3), (onward, 2)] {
            for _ in 0..parameters {
                builder.append_block_param(block, I64);
            }
        }
        builder.set_cold_block(out);
        let pages = Pages::new(&mut builder, region);
        Self {
            builder,
            region,
            stubs,
            features,
            cpu,
            entry_pc: pc,
            page,
            counter,
            potentials: budget::potentials(region),
            registers,
            blocks,
            out,
            onward,
            signatures: [None; 6],
            index: 0,
            at: region.blocks[0].start,
            ahead: 0,
            dirty: Registers::NONE,
            exit: None,
            exit_tail: None,
            facts: Facts::default(),
            groups: Groups::default(),
            pages,
            rarely: false,
            armed: false,
            singles: [None; 32],
            results: settle::results(region),
            unsettled: Registers::NONE,
            unread: Registers::NONE,
        }
    }

    /// Leaves at once if nothing is left to execute, else fetches registers.
    fn enter(&mut self) {
        let left = self.builder.use_var(self.counter);
        let body = self.builder.create_block();
        let none = self.number(0);
        let spent =
            self.builder.ins().icmp(ir::condcodes::IntCC::SignedLessThanOrEqual, left, none);
        let go_on = self.number(native::status::GO_ON as i64);
        self.builder.ins().brif(
            spent,
            self.out,
            &[self.entry_pc.into(), left.into(), go_on.into()],
            body,
            &[],
        );
        self.builder.switch_to_block(body);
        for number in self.region.live.iter() {
            let kind = if number < 32 { I64 } else { F64 };
            let value = self.fetch(kind, native::register(number));
            self.builder.def_var(self.registers[number], value);
        }
        self.forget_pages();
        self.builder.ins().jump(self.blocks[0], &[]);
    }

    /// Translates one block of the region.
    fn block(&mut self, index: usize) {
        let block = &self.region.blocks[index];
        self.builder.switch_to_block(self.blocks[index]);
        self.index = index;
        self.at = block.start;
        self.dirty = block.dirty;
        self.exit = None;
        self.exit_tail = None;
        self.facts = Facts::default();
        self.groups = Groups::new(&block.insts);
        self.armed = false;
        self.singles = [None; 32];
        self.unsettled = self.results[index];
        self.unread = Registers::NONE;
        self.ahead = block.insts.len() as i64;
        for (at, inst) in &block.insts {
            self.at = *at;
            if self.at == jumps::CROSSING as i64 && inst.len() == 4 {
                self.compare_tail();
            }
            self.instruction(*inst);
            self.ahead -= 1;
        }
        match block.end {
            End::Jump { to } => {
                self.settle_for_successors();
                self.go_to(to);
            }
            End::Interpret { at } => {
                self.at = at;
                self.leave(native::status::INTERPRET);
            }
            // The branch or jump itself did it.
            End::Branch { .. } | End::Indirect => {}
        }
    }

    fn instruction(&mut self, inst: Inst) {
        match inst.op {
            Op::Beq | Op::Bne | Op::Blt | Op::Bge | Op::Bltu | Op::Bgeu => self.branch(inst),
            Op::Jalr if self.region.blocks[self.index].end == End::Indirect => {
                self.jump_indirect(inst);
            }
            Op::Jal | Op::Jalr => self.link(inst),
            Op::Csrrw | Op::Csrrs | Op::Csrrc | Op::Csrrwi | Op::Csrrsi | Op::Csrrci => {
                self.csr(inst);
            }
            Op::Lb | Op::Lh | Op::Lw | Op::Ld | Op::Lbu | Op::Lhu | Op::Lwu => self.load(inst),
            Op::Sb | Op::Sh | Op::Sw | Op::Sd => self.store(inst),
            op if super::operands::is_float(op) => self.float(inst),
            op if atomic::is_atomic(op) => self.atomic(inst),
            _ => self.integer(inst),
        }
    }

    fn number(&mut self, value: i64) -> Value {
        self.builder.ins().iconst(I64, value)
    }

    /// The virtual address of what is at `offset` in the page.
    fn pc_of(&mut self, offset: i64) -> Value {
        let offset = self.number(offset);
        self.builder.ins().iadd(self.page, offset)
    }

    fn x(&mut self, register: u8) -> Value {
        match register & 31 {
            0 => self.number(0),
            register => self.builder.use_var(self.registers[usize::from(register)]),
        }
    }

    /// The register as a value and a number, whose sum it is.
    fn x_sum(&mut self, register: u8) -> (Value, i64) {
        self.facts.of(register).sum.unwrap_or_else(|| (self.x(register), 0))
    }

    fn set_x(&mut self, register: u8, value: Value) {
        if (1..32).contains(&register) {
            self.builder.def_var(self.registers[usize::from(register)], value);
            self.facts.set(register, Fact::default());
            self.written(register.into());
        }
    }

    fn f(&mut self, register: u8) -> Value {
        self.unread = self.unread.without(Registers::of(32 + usize::from(register & 31)));
        self.builder.use_var(self.registers[32 + usize::from(register & 31)])
    }

    fn set_f(&mut self, register: u8, value: Value) {
        let this = Registers::of(32 + usize::from(register & 31));
        self.settle_unread(register);
        self.unsettled = self.unsettled.without(this);
        self.builder.def_var(self.registers[32 + usize::from(register & 31)], value);
        self.singles[usize::from(register & 31)] = None;
        self.written(32 + usize::from(register & 31));
    }

    /// Register `number` differs from its home now.
    fn written(&mut self, number: usize) {
        self.dirty = self.dirty.with(Registers::of(number));
        self.exit = None;
    }

    fn fetch(&mut self, kind: Type, offset: i32) -> Value {
        self.builder.ins().load(kind, memory(), self.cpu, offset)
    }

    fn put(&mut self, value: Value, offset: i32) {
        self.builder.ins().store(memory(), value, self.cpu, offset);
    }

    /// Calls a function of the runtime; `arguments` go behind the hart.
    fn call(&mut self, helper: Helper, arguments: &[Value]) {
        let signature = self.signatures[arguments.len()].unwrap_or_else(|| {
            let signature = super::stubs::signature(arguments.len() + 1);
            self.builder.import_signature(signature)
        });
        self.signatures[arguments.len()] = Some(signature);
        let stub = self.number(self.stubs.address(helper) as i64);
        let arguments = [&[self.cpu], arguments].concat();
        self.builder.ins().call_indirect(signature, stub, &arguments);
    }

    /// A block that is rarely executed.
    fn cold_block(&mut self) -> ir::Block {
        let block = self.builder.create_block();
        self.builder.set_cold_block(block);
        block
    }
}
