//! The guest's firmware: the RISC-V Supervisor Binary Interface,
//! specification 2.0, provided by the host instead of a program in M-mode.
//!
//! Base, TIME, IPI, RFENCE, HSM, SRST and DBCN, and Berth's own extension for
//! storage keys (`docs/storage-keys.md`). [`Call`] is the pure decoding
//! of a call's registers; [`Firmware`] carries it out.

use std::sync::Arc;

use engine::riscv::RiscvVcpu;
use engine::{Fence, Interrupt};
use main_storage::StorageKey;
use storage_window::StorageWindow;
use vm_memory::{Bytes, GuestAddress};

use crate::MachineEnd;
use crate::storage_keys::{Cleared, FORGET, StorageKeys};
use crate::vcpu_control::{HartStart, HartState, VcpuControl};

/// Version 2.0, as the base extension encodes it (section 4.1).
const SPECIFICATION_VERSION: u64 = 2 << 24;
/// Not in the list of registered implementations (section 4.9).
const IMPLEMENTATION_ID: u64 = 0x4245;

/// Registers of the SBI calling convention (section 3).
const A0: usize = 10;
const A1: usize = 11;
const A2: usize = 12;
const A3: usize = 13;
const A6: usize = 16;
const A7: usize = 17;

/// Extension ids, each three or four letters of ASCII.
mod extension {
    pub(super) const BASE: u64 = 0x10;
    pub(super) const TIME: u64 = 0x5449_4D45;
    pub(super) const IPI: u64 = 0x73_5049;
    pub(super) const RFENCE: u64 = 0x5246_4E43;
    pub(super) const HSM: u64 = 0x48_534D;
    pub(super) const SRST: u64 = 0x5352_5354;
    pub(super) const DBCN: u64 = 0x4442_434E;
    /// Of the range for experiments (section 4.8): "SK" below its prefix.
    pub(super) const STORAGE_KEYS: u64 = 0x0800_534B;
    pub(super) const ALL: [u64; 8] = [BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN, STORAGE_KEYS];
}

/// Standard errors (section 3, table 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SbiError {
    NotSupported = -2,
    InvalidParam = -3,
    InvalidAddress = -5,
    AlreadyAvailable = -6,
}

/// A set of harts: bit `i` of `mask` is hart `base + i`; a base of all ones
/// means every hart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HartMask {
    mask: u64,
    base: u64,
}

impl HartMask {
    fn harts(self, count: usize) -> Result<Vec<usize>, SbiError> {
        if self.base == u64::MAX {
            return Ok((0..count).collect());
        }
        (0..64)
            .filter(|bit| self.mask >> bit & 1 == 1)
            .map(|bit| {
                let hart = self.base.checked_add(bit).and_then(|hart| usize::try_from(hart).ok());
                hart.filter(|hart| *hart < count).ok_or(SbiError::InvalidParam)
            })
            .collect()
    }
}

/// A decoded call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// A base call that returns a number.
    Value(u64),
    SetTimer(u64),
    SendIpi(HartMask),
    RemoteFence(HartMask, Fence),
    HartStart {
        hart: u64,
        start: HartStart,
    },
    HartStop,
    HartStatus(u64),
    Reset {
        kind: u32,
    },
    ConsoleWrite {
        length: u64,
        address: u64,
    },
    ConsoleRead,
    ConsoleWriteByte(u8),
    InsertKey {
        address: u64,
    },
    SetKey {
        address: u64,
        key: StorageKey,
    },
    ResetReference {
        address: u64,
    },
}

impl Call {
    /// What the guest asks for, from `a7`, `a6` and `a0` to `a3`.
    fn decode(extension: u64, function: u64, a: [u64; 4]) -> Result<Self, SbiError> {
        let mask = HartMask { mask: a[0], base: a[1] };
        // Section 8: start and size both zero, or size all ones, mean all.
        let size = if a[2] == 0 && a[3] == 0 { u64::MAX } else { a[3] };
        let translations = Fence::Translations { start: a[2], size };
        Ok(match (extension, function) {
            (extension::BASE, 0) => Self::Value(SPECIFICATION_VERSION),
            (extension::BASE, 1) => Self::Value(IMPLEMENTATION_ID),
            (extension::BASE, 2) => Self::Value(1),
            (extension::BASE, 3) => Self::Value(extension::ALL.contains(&a[0]).into()),
            // mvendorid, marchid, mimpid: 0, not a commercial implementation.
            (extension::BASE, 4..=6) => Self::Value(0),
            (extension::TIME, 0) => Self::SetTimer(a[0]),
            (extension::IPI, 0) => Self::SendIpi(mask),
            (extension::RFENCE, 0) => Self::RemoteFence(mask, Fence::Instructions),
            // With an ASID (2) as without (1): flushing more is allowed.
            (extension::RFENCE, 1 | 2) => Self::RemoteFence(mask, translations),
            (extension::HSM, 0) => {
                Self::HartStart { hart: a[0], start: HartStart { entry: a[1], opaque: a[2] } }
            }
            (extension::HSM, 1) => Self::HartStop,
            (extension::HSM, 2) => Self::HartStatus(a[0]),
            (extension::SRST, 0) => {
                Self::Reset { kind: u32::try_from(a[0]).map_err(|_| SbiError::InvalidParam)? }
            }
            (extension::DBCN, 0) => {
                if a[2] != 0 {
                    return Err(SbiError::InvalidParam);
                }
                Self::ConsoleWrite { length: a[0], address: a[1] }
            }
            (extension::DBCN, 1) => Self::ConsoleRead,
            (extension::DBCN, 2) => Self::ConsoleWriteByte(a[0].to_le_bytes()[0]),
            (extension::STORAGE_KEYS, 0) => Self::InsertKey { address: a[0] },
            (extension::STORAGE_KEYS, 1) => {
                // Not a byte, or with the bit that no key has.
                let byte = u8::try_from(a[1]).ok().filter(|byte| byte & 1 == 0);
                let key = StorageKey::from_byte(byte.ok_or(SbiError::InvalidParam)?);
                Self::SetKey { address: a[0], key }
            }
            (extension::STORAGE_KEYS, 2) => Self::ResetReference { address: a[0] },
            _ => return Err(SbiError::NotSupported),
        })
    }
}

/// What the vCPU's thread does after a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    /// Enter the guest again.
    Continue,
    /// The hart has stopped itself: wait until another starts it.
    HartStopped,
    /// The guest has ended the machine.
    End(MachineEnd),
}

/// Where the debug console's output goes.
pub(crate) type DebugConsole = dyn Fn(&[u8]) + Send + Sync;

/// Carries out calls; one for all vCPUs.
pub(crate) struct Firmware {
    pub(crate) control: Arc<VcpuControl>,
    pub(crate) window: Arc<StorageWindow>,
    pub(crate) keys: StorageKeys,
    pub(crate) console: Box<DebugConsole>,
}

impl Firmware {
    /// Handles the call that `vcpu`, hart number `hart`, has just made.
    pub(crate) fn call(&self, hart: usize, vcpu: &mut dyn RiscvVcpu) -> After {
        let arguments = [A0, A1, A2, A3].map(|register| vcpu.x(register));
        let call = Call::decode(vcpu.x(A7), vcpu.x(A6), arguments);
        let result = match call {
            Ok(Call::HartStop) => {
                self.control.stop_hart(hart);
                return After::HartStopped;
            }
            Ok(Call::Reset { kind }) => match kind {
                0 => return After::End(MachineEnd::PowerOff),
                1 | 2 => return After::End(MachineEnd::Reboot),
                _ => Err(SbiError::InvalidParam),
            },
            Ok(call) => self.carry_out(call, hart, vcpu),
            Err(error) => Err(error),
        };
        let (error, value) = match result {
            Ok(value) => (0, value),
            // Sign-extended to the register, as the calling convention wants.
            Err(error) => (error as i64 as u64, 0),
        };
        vcpu.set_x(A0, error);
        vcpu.set_x(A1, value);
        After::Continue
    }

    fn carry_out(
        &self,
        call: Call,
        hart: usize,
        vcpu: &mut dyn RiscvVcpu,
    ) -> Result<u64, SbiError> {
        let handles = self.control.handles();
        match call {
            Call::Value(value) => return Ok(value),
            Call::SetTimer(deadline) => vcpu.set_timer(deadline),
            Call::SendIpi(mask) => {
                for target in mask.harts(handles.len())? {
                    handles[target].set_interrupt(Interrupt::Software, true);
                }
            }
            Call::RemoteFence(mask, fence) => {
                self.fence(&mask.harts(handles.len())?, fence, hart, vcpu);
            }
            Call::HartStart { hart, start } => {
                let hart = usize::try_from(hart).map_err(|_| SbiError::InvalidParam)?;
                self.control.hart_state(hart).ok_or(SbiError::InvalidParam)?;
                let size = self.window.size();
                self.window
                    .layout()
                    .offset(start.entry, 1, size)
                    .ok_or(SbiError::InvalidAddress)?;
                self.control.start_hart(hart, start).map_err(|_| SbiError::AlreadyAvailable)?;
            }
            Call::HartStatus(hart) => {
                let hart = usize::try_from(hart).map_err(|_| SbiError::InvalidParam)?;
                return match self.control.hart_state(hart).ok_or(SbiError::InvalidParam)? {
                    HartState::Started => Ok(0),
                    HartState::Stopped => Ok(1),
                    HartState::StartPending(_) => Ok(2),
                };
            }
            Call::ConsoleWrite { length, address } => return self.console_write(length, address),
            // Input comes by the console's I/O processor.
            Call::ConsoleRead => return Ok(0),
            Call::ConsoleWriteByte(byte) => (self.console)(&[byte]),
            Call::InsertKey { address } => {
                let key = self.keys.insert(address).ok_or(SbiError::InvalidAddress)?;
                return Ok(key.byte().into());
            }
            Call::SetKey { address, key } => {
                let cleared = self.keys.set(address, key).ok_or(SbiError::InvalidAddress)?;
                self.forget(cleared, hart, vcpu);
            }
            Call::ResetReference { address } => {
                let reset = self.keys.reset_reference(address);
                let (code, cleared) = reset.ok_or(SbiError::InvalidAddress)?;
                self.forget(cleared, hart, vcpu);
                return Ok(code.into());
            }
            Call::HartStop | Call::Reset { .. } => return Err(SbiError::NotSupported),
        }
        Ok(0)
    }

    /// Has every vCPU note the next access to a page anew.
    fn forget(&self, cleared: Cleared, hart: usize, vcpu: &mut dyn RiscvVcpu) {
        if cleared.0 {
            let all: Vec<_> = (0..self.control.handles().len()).collect();
            self.fence(&all, FORGET, hart, vcpu);
        }
    }

    /// Asks every target at once and waits for all. Meanwhile this vCPU
    /// carries out what others ask of it, so that two that fence each other
    /// both come through.
    fn fence(&self, targets: &[usize], fence: Fence, hart: usize, vcpu: &mut dyn RiscvVcpu) {
        let handles = self.control.handles();
        let asked: Vec<_> =
            targets.iter().map(|&target| (target, handles[target].request_fence(fence))).collect();
        vcpu.service_fences();
        for (target, ticket) in asked.into_iter().filter(|(target, _)| *target != hart) {
            while !handles[target].fence_done(ticket) {
                vcpu.service_fences();
                std::thread::yield_now();
            }
        }
    }

    /// Writes as much as fits one buffer; the guest calls again for the rest
    /// (section 12.1 allows a short count).
    fn console_write(&self, length: u64, address: u64) -> Result<u64, SbiError> {
        let mut buffer = [0; 1024];
        let count = usize::try_from(length).unwrap_or(buffer.len()).min(buffer.len());
        self.window
            .read_slice(&mut buffer[..count], GuestAddress(address))
            .map_err(|_| SbiError::InvalidParam)?;
        (self.console)(&buffer[..count]);
        Ok(count as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_base_extension_reports_what_is_there() {
        let probe = |id| Call::decode(extension::BASE, 3, [id, 0, 0, 0]);
        assert_eq!(probe(extension::RFENCE), Ok(Call::Value(1)));
        assert_eq!(probe(0x1234), Ok(Call::Value(0)));
        assert_eq!(Call::decode(extension::BASE, 0, [0; 4]), Ok(Call::Value(2 << 24)));
        assert_eq!(Call::decode(0, 0, [0; 4]), Err(SbiError::NotSupported), "legacy console");
    }

    #[test]
    fn a_key_is_a_byte_without_its_lowest_bit() {
        let set = |key| Call::decode(extension::STORAGE_KEYS, 1, [0, key, 0, 0]);
        let key = StorageKey::from_byte(0xfe);
        assert_eq!(set(0xfe), Ok(Call::SetKey { address: 0, key }));
        assert_eq!(
            (set(1), set(0x100)),
            (Err(SbiError::InvalidParam), Err(SbiError::InvalidParam))
        );
    }

    #[test]
    fn a_hart_mask_names_harts_from_its_base() {
        assert_eq!(HartMask { mask: 0b101, base: 1 }.harts(4), Ok(vec![1, 3]));
        assert_eq!(HartMask { mask: 0, base: u64::MAX }.harts(2), Ok(vec![0, 1]));
        assert_eq!(HartMask { mask: 0b10, base: 1 }.harts(2), Err(SbiError::InvalidParam));
        assert_eq!(HartMask { mask: 2, base: u64::MAX - 1 }.harts(2), Err(SbiError::InvalidParam));
    }

    #[test]
    fn a_fence_without_range_means_everything() {
        let Ok(Call::RemoteFence(_, fence)) = Call::decode(extension::RFENCE, 1, [1, 0, 0, 0])
        else {
            panic!("a remote fence");
        };
        assert_eq!(fence, Fence::Translations { start: 0, size: u64::MAX });
    }

    proptest! {
        #[test]
        fn no_call_panics(extension in any::<u64>(), function in 0u64..10, a in any::<[u64; 4]>()) {
            let known = extension::ALL.into_iter().chain([extension]);
            for id in known {
                if let Ok(Call::SendIpi(mask) | Call::RemoteFence(mask, _)) = Call::decode(id, function, a) {
                    let _ = mask.harts(8);
                }
            }
        }
    }
}
