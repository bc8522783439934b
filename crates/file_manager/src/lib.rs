//! The users' file spaces: who may reach what, and the server of it.
//!
//! A [`FileManager`] keeps the access identity table ([`AccessTable`]) and the
//! spaces, which are directories of the host. A [`Session`] is the file system of
//! one machine for as long as one user has it: it answers the FUSE requests of the
//! guest's kernel, and looks at the table for every one.
//!
//! Everything of the host is reached beneath the space's directory, by one module
//! (`space::beneath`) that follows no link and leaves no directory. The messages
//! are taken apart in `fuse`, which is pure: the few that are needed are less than
//! the libraries there are would bring along.

mod access;
mod fuse;
#[cfg(any(test, feature = "test-utils"))]
pub mod guest_kernel;
mod manager;
mod names;
mod session;
mod space;

pub use access::{
    AccessError, AccessTable, Grant, MAX_GRANTS, MAX_SPACES, Quota, Right, SpaceEntry,
    TableFileError,
};
pub use fuse::{MAX_DATA, MAX_REPLY, MAX_REQUEST, REPLY_HEADER, REQUEST_HEADER};
pub use manager::{FileManager, ManagerError};
pub use names::{MAX_DEPTH, MAX_FILE_NAME, SpaceName, SpacePath, Subject};
pub use session::Session;
pub use space::Usage;
