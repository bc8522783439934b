//! What a RISC-V machine asks of its vCPUs beyond the common trait.

/// The RISC-V side of a vCPU. Called only by the thread that owns the vCPU,
/// and only while it is outside the guest.
pub trait RiscvVcpu {
    /// Integer register `x0` to `x31`; `index` is taken modulo 32.
    fn x(&self, index: usize) -> u64;

    /// Writes an integer register; a write of `x0` does nothing.
    fn set_x(&mut self, index: usize, value: u64);

    /// The program counter.
    fn pc(&self) -> u64;

    /// Starts the hart as the SBI's HSM extension prescribes: S-mode at
    /// `entry`, `a0` = hart id, `a1` = `opaque`, translation off, interrupts
    /// disabled, everything else as after reset.
    fn start(&mut self, entry: u64, opaque: u64);

    /// Sets the deadline of the supervisor timer, in ticks of the `time` CSR
    /// ([`TIMEBASE_HZ`]): the SBI's TIME extension, same effect as a write of
    /// `stimecmp`.
    fn set_timer(&mut self, deadline: u64);

    /// Carries out fences that other vCPUs asked of this one. A vCPU that
    /// waits for others outside the guest calls this so that two waiting for
    /// each other both come through.
    fn service_fences(&mut self);

    /// Instructions retired by this vCPU since it was made.
    fn instructions_retired(&self) -> u64;
}

/// Frequency of the `time` CSR, in hertz; goes into the device tree.
pub const TIMEBASE_HZ: u64 = 10_000_000;
