//! Maps a partition's range of main storage to where its guest sees it.
//!
//! [`MainStorage`] is the block of host memory itself; the host daemon creates
//! and owns it and gives freed ranges back with [`MainStorage::discard`]. A
//! [`StorageWindow`] is one partition's view of it, in that partition's worker:
//! a host address range that never changes, whatever backs it. vCPUs and I/O
//! processors hold the window and keep its pointers for life.
//!
//! A relocation changes what backs the window, in phases that are types, each
//! with its own undo:
//!
//! ```text
//! window.prepare() -> Prepared --copy()--> Copied --commit()--> Committed --finish()--> CopyReport
//!   guest runs          | drop   guest     | drop    guest        | undo()    guest runs again;
//!   meanwhile           v        stopped   v         stopped      v           old range discarded
//!                     the window shows the old range, contents intact
//! ```
//!
//! That is the stop mode. In the live mode the guest runs on while its storage
//! slides to the destination chunk by chunk, and a vCPU or I/O processor waits
//! only if it stores into the chunk in flight:
//!
//! ```text
//! window.prepare() -> Prepared --slide()--> Slid --finish()--> SlideReport
//! ```
//!
//! Only `copy` and `commit` belong into the guest's pause: destination pages
//! and page tables are made in `prepare`, and moved under the window's address
//! in `commit`.
//!
//! A window also grows and shrinks at its end ([`StorageWindow::grow`],
//! [`StorageWindow::shrink`]); where its guest sees the parts, the
//! [`GuestLayout`] says. Who may use which range is not decided here: the resource
//! manager does that (crate `main_storage`).
#![expect(unsafe_code, reason = "maps, copies and remaps memory that guests use")]

mod adopt;
mod backing;
mod capture;
mod copy_page;
mod exchange;
mod fault;
mod flight;
mod layout;
mod live;
mod mapping;
mod relocate;
mod resize;
mod runs;
mod storage;
mod transfer;
mod window;

pub mod bench;

pub use adopt::{Adopted, Adoption};
pub use backing::{Backing, HugePage};
pub use capture::{Capture, CaptureError, PutBack};
pub use exchange::{Exchange, ExchangeReport};
pub use layout::{GuestLayout, HOT_PLUG_ALIGNMENT};
pub use live::{CHUNK, Slid, SlideReport};
pub use relocate::{Committed, Copied, CopyReport, Prepared, Progress, RelocateError};
pub use resize::ResizeError;
pub use storage::{CreateError, DiscardError, MainStorage};
pub use window::{MapError, StorageWindow};

#[cfg(test)]
mod tests;
