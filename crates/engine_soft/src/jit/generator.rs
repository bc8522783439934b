//! Cranelift, set up for units.

use std::io;
use std::sync::Arc;

use cranelift_codegen::Context;
use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::FunctionBuilderContext;

use super::region::{Executed, Region, Source};
use super::stubs::{Stubs, machine_code};
use super::translate::{HostFeatures, translate};

/// Why there is no compiled code; the interpreter goes on alone.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The host's processor has no code generator here.
    #[error("no compiler for this host's processor: {0}")]
    Host(String),
    /// The host gives no memory for code.
    #[error("the host gives no memory for compiled code")]
    Memory(#[source] io::Error),
    /// The memory for code is full.
    #[error("the memory for compiled code is full")]
    Full,
    /// The code generator refused a function.
    #[error("the code generator refused: {0}")]
    Refused(String),
}

/// Compiles units, one at a time.
pub(super) struct Generator {
    isa: OwnedTargetIsa,
    context: Context,
    builder: FunctionBuilderContext,
    features: HostFeatures,
}

impl Generator {
    /// A generator for this host, and the stubs its code needs.
    pub(super) fn new() -> Result<(Self, Arc<Stubs>), CompileError> {
        let mut flags = settings::builder();
        let choices = [
            // Optimisations across instructions would move floating-point
            // operations, whose flags the guest can see.
            ("opt_level", "none"),
            ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
            ("enable_probestack", "false"),
            ("unwind_info", "false"),
            // Tail calls need them.
            ("preserve_frame_pointers", "true"),
            ("is_pic", "false"),
        ];
        for (name, value) in choices {
            flags.set(name, value).map_err(|error| CompileError::Host(error.to_string()))?;
        }
        let isa = cranelift_native::builder()
            .map_err(|error| CompileError::Host(error.into()))?
            .finish(settings::Flags::new(flags))
            .map_err(|error| CompileError::Host(error.to_string()))?;
        let mut generator = Self {
            isa,
            context: Context::new(),
            builder: FunctionBuilderContext::new(),
            features: HostFeatures { fma: host_fuses() },
        };
        let isa = Arc::clone(&generator.isa);
        let stubs = Stubs::new(&*isa, |function| generator.finish(function))?;
        Ok((generator, Arc::new(stubs)))
    }

    /// Gives up working memory.
    pub(super) fn rest(&mut self) {
        self.context = Context::new();
        self.builder = FunctionBuilderContext::new();
    }

    fn finish(&mut self, function: Function) -> Result<Vec<u8>, CompileError> {
        self.context.clear();
        self.context.func = function;
        machine_code(&mut self.context, &*self.isa)
    }

    /// The machine code of the unit that begins at `entry` of `source`; `None`
    /// if there is none.
    pub(super) fn unit(
        &mut self,
        stubs: &Stubs,
        source: Source<'_>,
        executed: &Executed,
        entry: i64,
    ) -> Option<Result<Vec<u8>, CompileError>> {
        let region = Region::new(source, executed, entry)?;
        self.context.clear();
        translate(
            &mut self.context.func,
            &mut self.builder,
            &region,
            stubs,
            self.features,
            self.isa.frontend_config(),
        );
        Some(machine_code(&mut self.context, &*self.isa))
    }
}

/// Whether fused multiply-add is one instruction of the host.
fn host_fuses() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("fma") && std::is_x86_feature_detected!("avx");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}
