//! The second tier: hot code compiled for the host.
//!
//! The interpreter counts how often code is entered by a jump. What is hot it
//! asks the machine's [`Compiler`] for, and goes on; when the unit is there a
//! marker in the decoded page leads to it. Units find each other through the
//! [`jumps`] cache and come back when they cannot go on.
//!
//! ```text
//! compiler     one thread a machine: requests in, units out
//!   generator  Cranelift
//!   region     which code a unit is made of; operands: what it reads, writes
//!   translate  instruction by instruction
//!   arena      memory for code, never writable and executable
//! stubs        into compiled code, and from it into the runtime
//! runtime      what compiled code calls
//! native       what it shares with the hart
//! units        what one vCPU knows of all this
//! ```
//!
//! Invariant: a unit is a function of its page's contents. It goes when the
//! page's decoded instructions go: where `fence.i` found the page changed.
//! Whoever forgets translations of fetches also forgets [`jumps`].

mod arena;
mod compiler;
mod flags;
mod generator;
pub(crate) mod jumps;
pub(crate) mod native;
mod operands;
mod region;
pub(crate) mod runtime;
mod stubs;
mod translate;
mod units;

pub use compiler::{Compiler, CompilerConfig, CompilerReport};
pub use generator::CompileError;

pub(crate) use compiler::{Answer, Place, Request};
pub(crate) use operands::writes_integer;
pub(crate) use region::Executed;
pub(crate) use units::{Units, enter};
