//! Address translation: Bare, Sv39 and Sv48 (privileged specification 1.13,
//! sections 12.3 to 12.5), with A and D bits updated by hardware (Svadu) or
//! faulting (Svade).
//!
//! [`translate`] walks; what it reads and updates it asks of a
//! [`PhysicalMemory`]. Everything that governs an access is in the
//! [`Context`] argument.

use crate::trap::{Exception, Privilege, Trap};

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// Where page tables are.
pub trait PhysicalMemory {
    /// The 8-byte table entry at `address`; `None` where there is no storage.
    fn read_entry(&self, address: u64) -> Option<u64>;

    /// Atomically replaces the table entry at `address` if it still is `old`;
    /// whether it did. `None` where there is no storage.
    fn replace_entry(&self, address: u64, old: u64, new: u64) -> Option<bool>;
}

/// What an access wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Fetch an instruction.
    Fetch,
    /// Load.
    Load,
    /// Store, AMO or `sc`.
    Store,
}

impl Access {
    /// The page fault of this access at virtual `address`.
    #[must_use]
    pub fn page_fault(self, address: u64) -> Trap {
        let exception = match self {
            Self::Fetch => Exception::InstructionPageFault,
            Self::Load => Exception::LoadPageFault,
            Self::Store => Exception::StorePageFault,
        };
        Trap { exception, value: address }
    }

    /// The access fault of this access at virtual `address`.
    #[must_use]
    pub fn access_fault(self, address: u64) -> Trap {
        let exception = match self {
            Self::Fetch => Exception::InstructionAccessFault,
            Self::Load => Exception::LoadAccessFault,
            Self::Store => Exception::StoreAccessFault,
        };
        Trap { exception, value: address }
    }
}

/// Everything but the address that governs a translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// `satp`: mode, ASID, root.
    pub satp: u64,
    /// The effective privilege of the access.
    pub privilege: Privilege,
    /// `mstatus.SUM`: S-mode loads and stores may use user pages.
    pub user_memory: bool,
    /// `mstatus.MXR`: loads may use executable pages.
    pub executable_readable: bool,
    /// `menvcfg.ADUE`: A and D are set by the walk, else their absence faults.
    pub hardware_update: bool,
}

impl Context {
    /// Whether virtual addresses are physical ones.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.privilege == Privilege::Machine || self.satp >> 60 == 0
    }
}

/// Where a virtual address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// Physical address, offset included.
    pub physical: u64,
    /// Bytes of the leaf page: 4 KiB or a superpage.
    pub leaf_size: u64,
    /// The mapping is the same in all address spaces.
    pub global: bool,
}

mod entry {
    pub(super) const V: u64 = 1 << 0;
    pub(super) const R: u64 = 1 << 1;
    pub(super) const W: u64 = 1 << 2;
    pub(super) const X: u64 = 1 << 3;
    pub(super) const U: u64 = 1 << 4;
    pub(super) const G: u64 = 1 << 5;
    pub(super) const A: u64 = 1 << 6;
    pub(super) const D: u64 = 1 << 7;
    /// Reserved, Svpbmt and Svnapot, none of which this hart has.
    pub(super) const RESERVED: u64 = 0x3FF << 54;
    pub(super) const PPN: u64 = (1 << 44) - 1;
}

const SATP_PPN: u64 = (1 << 44) - 1;
const SATP_SV48: u64 = 9;

/// Translates `address` for `access`.
///
/// # Errors
/// The trap to raise: a page fault, or an access fault where a table lies
/// outside storage. Its value is `address`.
pub fn translate(
    context: &Context,
    address: u64,
    access: Access,
    memory: &impl PhysicalMemory,
) -> Result<Translation, Trap> {
    if context.is_bare() {
        return Ok(Translation { physical: address, leaf_size: u64::MAX, global: true });
    }
    let levels = if context.satp >> 60 == SATP_SV48 { 4 } else { 3 };
    let unused_bits = 64 - (12 + 9 * levels);
    let sign_extended = ((address << unused_bits) as i64 >> unused_bits) as u64;
    if sign_extended != address {
        return Err(access.page_fault(address));
    }
    // A lost race for an entry's A and D bits starts the walk again.
    loop {
        if let Some(done) = walk(context, address, access, memory, levels)? {
            return Ok(done);
        }
    }
}

/// One walk; `None` if the leaf changed before its A or D could be set.
fn walk(
    context: &Context,
    address: u64,
    access: Access,
    memory: &impl PhysicalMemory,
    levels: u32,
) -> Result<Option<Translation>, Trap> {
    let page_fault = access.page_fault(address);
    let mut table = (context.satp & SATP_PPN) * PAGE_SIZE;
    let mut global = false;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let at = table + (address >> shift & 0x1FF) * 8;
        let pte = memory.read_entry(at).ok_or(access.access_fault(address))?;
        if pte & entry::V == 0
            || pte & (entry::R | entry::W) == entry::W
            || pte & entry::RESERVED != 0
        {
            return Err(page_fault);
        }
        let page = (pte >> 10 & entry::PPN) * PAGE_SIZE;
        global |= pte & entry::G != 0;
        if pte & (entry::R | entry::X) == 0 {
            if pte & (entry::A | entry::D | entry::U) != 0 {
                return Err(page_fault);
            }
            table = page;
            continue;
        }
        let leaf_size = 1_u64 << shift;
        if !permitted(context, pte, access) || page & (leaf_size - 1) != 0 {
            return Err(page_fault);
        }
        let wanted = pte | entry::A | if access == Access::Store { entry::D } else { 0 };
        if wanted != pte {
            if !context.hardware_update {
                return Err(page_fault);
            }
            let replaced = memory.replace_entry(at, pte, wanted);
            if !replaced.ok_or(access.access_fault(address))? {
                return Ok(None);
            }
        }
        let physical = page | address & (leaf_size - 1);
        return Ok(Some(Translation { physical, leaf_size, global }));
    }
    Err(page_fault)
}

/// Step 6 and 7 of the algorithm (section 12.3.2).
fn permitted(context: &Context, pte: u64, access: Access) -> bool {
    let user_page = pte & entry::U != 0;
    let mode_ok = match context.privilege {
        Privilege::User => user_page,
        _ if access == Access::Fetch => !user_page,
        _ => !user_page || context.user_memory,
    };
    let right_ok = match access {
        Access::Fetch => pte & entry::X != 0,
        Access::Load => pte & entry::R != 0 || context.executable_readable && pte & entry::X != 0,
        Access::Store => pte & entry::W != 0,
    };
    mode_ok && right_ok
}

#[cfg(test)]
mod tests;
