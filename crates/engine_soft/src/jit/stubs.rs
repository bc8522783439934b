//! The way into compiled code, and the ways from it into the runtime.

use cranelift_codegen::Context;
use cranelift_codegen::ir::{AbiParam, Function, InstBuilder, Signature, types::I64};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use super::arena::Arena;
use super::generator::CompileError;
use super::runtime;
use super::translate::unit_signature;
use crate::cpu::Cpu;

/// Enters compiled code: hart, instructions left, program counter, code.
/// Returns one of [`status`](super::native::status).
pub(crate) type Entrance = unsafe extern "C" fn(*mut Cpu, i64, u64, u64) -> u64;

/// The functions of [`runtime`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Helper {
    Find,
    Arm,
    Float,
    Csr,
}

impl Helper {
    /// Address and number of arguments, the hart included.
    const ALL: [(Helper, usize); 4] =
        [(Helper::Find, 3), (Helper::Arm, 1), (Helper::Float, 5), (Helper::Csr, 5)];

    fn function(self) -> usize {
        match self {
            Helper::Find => runtime::find as *const () as usize,
            Helper::Arm => runtime::arm as *const () as usize,
            Helper::Float => runtime::float as *const () as usize,
            Helper::Csr => runtime::csr as *const () as usize,
        }
    }
}

/// Code that all units share. Lives as long as any of them.
#[derive(Debug)]
pub(crate) struct Stubs {
    _arena: Arena,
    entrance: usize,
    helpers: Vec<usize>,
}

/// Stubs are small: this is plenty.
const SPACE: usize = 64 << 10;

/// What a helper looks like to compiled code: it keeps all registers, so its
/// results are in the hart.
pub(super) fn signature(arguments: usize) -> Signature {
    let mut signature = Signature::new(CallConv::PreserveAll);
    signature.params.extend(vec![AbiParam::new(I64); arguments]);
    signature
}

impl Stubs {
    pub(super) fn new(
        isa: &dyn TargetIsa,
        mut compile: impl FnMut(Function) -> Result<Vec<u8>, CompileError>,
    ) -> Result<Self, CompileError> {
        let native = isa.default_call_conv();
        let mut codes = vec![compile(entrance(native, isa))?];
        for (helper, arguments) in Helper::ALL {
            codes.push(compile(stub(native, isa, helper, arguments))?);
        }
        let arena = Arena::new(SPACE).map_err(CompileError::Memory)?;
        let pieces: Vec<&[u8]> = codes.iter().map(Vec::as_slice).collect();
        let mut helpers = arena.add(&pieces).ok_or(CompileError::Full)?;
        let entrance = helpers.remove(0);
        Ok(Self { _arena: arena, entrance, helpers })
    }

    pub(crate) fn address(&self, helper: Helper) -> usize {
        self.helpers[helper as usize]
    }

    pub(crate) fn entrance(&self) -> Entrance {
        let code = std::ptr::with_exposed_provenance::<()>(self.entrance);
        // SAFETY: compiled with just this signature.
        unsafe { std::mem::transmute::<*const (), Entrance>(code) }
    }
}

fn entrance(native: CallConv, isa: &dyn TargetIsa) -> Function {
    let mut signature = Signature::new(native);
    signature.params.extend([AbiParam::new(I64); 4]);
    signature.returns.push(AbiParam::new(I64));
    let mut function = Function::new();
    function.signature = signature;
    build(&mut function, isa, |builder, arguments| {
        let unit = builder.import_signature(unit_signature());
        let call = builder.ins().call_indirect(unit, arguments[3], &arguments[..3]);
        let status = builder.inst_results(call)[0];
        builder.ins().return_(&[status]);
    });
    function
}

fn stub(native: CallConv, isa: &dyn TargetIsa, helper: Helper, arguments: usize) -> Function {
    let mut function = Function::new();
    function.signature = signature(arguments);
    build(&mut function, isa, |builder, arguments| {
        let mut signature = Signature::new(native);
        signature.params.extend(vec![AbiParam::new(I64); arguments.len()]);
        let signature = builder.import_signature(signature);
        let address = builder.ins().iconst(I64, helper.function() as i64);
        builder.ins().call_indirect(signature, address, arguments);
        builder.ins().return_(&[]);
    });
    function
}

fn build(
    function: &mut Function,
    isa: &dyn TargetIsa,
    body: impl FnOnce(&mut FunctionBuilder<'_>, &[cranelift_codegen::ir::Value]),
) {
    let mut context = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(function, &mut context);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    builder.seal_block(entry);
    let arguments = builder.block_params(entry).to_vec();
    body(&mut builder, &arguments);
    builder.finalize(isa.frontend_config());
}

/// Compiles one function to bytes that need no relocation.
pub(super) fn machine_code(
    context: &mut Context,
    isa: &dyn TargetIsa,
) -> Result<Vec<u8>, CompileError> {
    let code = context
        .compile(isa, &mut Default::default())
        .map_err(|error| CompileError::Refused(format!("{:?}", error.inner)))?;
    if !code.buffer.relocs().is_empty() {
        return Err(CompileError::Refused("the code calls a library".into()));
    }
    Ok(code.buffer.data().to_vec())
}
