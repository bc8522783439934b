//! The narrow interface between a machine and its CPU.
//!
//! A machine owns one [`Vcpu`] per virtual CPU and enters it from that vCPU's
//! own thread with [`Vcpu::run`]; the call returns only when the machine has
//! something to do ([`Exit`]). Everybody else, I/O processors and vCPU control
//! alike, holds the vCPU's [`VcpuHandle`] and reaches it from any thread:
//! raises interrupts, asks for fences, kicks it out of the guest.
//!
//! What the CPU cannot find in main storage it asks of the [`Bus`].
//!
//! [`riscv`] is the extension for RISC-V guests: facts that only a machine of
//! that architecture asks for. Nothing here is under `cfg(target_arch)`.

pub mod riscv;

use std::sync::Arc;

/// Guest physical addresses that are not storage: device registers.
pub trait Bus: Send + Sync {
    /// A load of `data.len()` bytes (1, 2, 4 or 8) by a vCPU.
    ///
    /// # Errors
    /// [`BusError`] when nothing answers at `address`; the vCPU raises an
    /// access fault in the guest.
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), BusError>;

    /// A store of `data.len()` bytes (1, 2, 4 or 8) by a vCPU.
    ///
    /// # Errors
    /// As for [`Bus::read`].
    fn write(&self, address: u64, data: &[u8]) -> Result<(), BusError>;
}

/// No device answers at this guest physical address. The guest is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no device at guest physical address {address:#x}")]
pub struct BusError {
    /// The address the guest used.
    pub address: u64,
}

/// Why [`Vcpu::run`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The guest called its firmware (RISC-V: `ecall` from S-mode). The
    /// machine reads the arguments from the registers, writes the results and
    /// enters the guest again; the program counter is already past the call.
    FirmwareCall,
    /// [`VcpuHandle::kick`] was called. Nothing is lost: the next
    /// [`Vcpu::run`] goes on at the very next instruction.
    Kicked,
    /// The guest can never make progress again, e.g. a trap whose handler
    /// traps at its own first instruction. `pc` is where.
    Stuck {
        /// Guest program counter.
        pc: u64,
    },
}

/// An interrupt line into a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// From another vCPU (RISC-V: SSIP). The guest clears it itself.
    Software,
    /// From the interrupt controller (RISC-V: SEIP). Level: stays until
    /// lowered by the controller.
    External,
}

/// What remote vCPUs must forget before a fence returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Decoded or compiled instructions (RISC-V: FENCE.I).
    Instructions,
    /// Address translations of `size` bytes from guest virtual address
    /// `start`; `size == u64::MAX` means all (RISC-V: SFENCE.VMA).
    Translations {
        /// First guest virtual address.
        start: u64,
        /// Length in bytes.
        size: u64,
    },
}

/// One virtual CPU, owned by the thread that runs it.
pub trait Vcpu: Send {
    /// Enters the guest and stays there until there is an [`Exit`].
    ///
    /// A guest that waits for an interrupt sleeps inside this call, without
    /// using the host's CPU. A kick that came before the call still counts:
    /// the call returns [`Exit::Kicked`] at once.
    fn run(&mut self, bus: &dyn Bus) -> Exit;

    /// The handle other threads use. Valid as long as it is held.
    fn handle(&self) -> Arc<dyn VcpuHandle>;

    /// The RISC-V facts of this vCPU.
    fn riscv(&mut self) -> &mut dyn riscv::RiscvVcpu;
}

/// A vCPU as seen by every other thread.
pub trait VcpuHandle: Send + Sync {
    /// Raises or lowers an interrupt line, waking a vCPU that waits for one.
    fn set_interrupt(&self, interrupt: Interrupt, level: bool);

    /// Makes the present or next [`Vcpu::run`] return [`Exit::Kicked`] soon.
    /// Does not wait for it.
    fn kick(&self);

    /// Asks the vCPU to carry out `fence` before its next guest instruction.
    /// Does not wait; the ticket is for [`VcpuHandle::fence_done`].
    fn request_fence(&self, fence: Fence) -> FenceTicket;

    /// Whether the fence behind `ticket` can no longer be overtaken by a guest
    /// instruction: it was carried out, or the vCPU is outside the guest (it
    /// carries out what was asked before it enters again).
    fn fence_done(&self, ticket: FenceTicket) -> bool;
}

/// Names one requested fence of one vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FenceTicket(pub u64);
