//! The users' file spaces: who may reach what, and the server of it.
//!
//! A [`FileManager`] keeps the access identity table ([`AccessTable`]) and the
//! spaces, which are directories of the host. A [`Session`] is the file system of
//! one machine for as long as one user has it: it answers the FUSE requests of the
//! guest's kernel, and looks at the table for every one.
//!
//! The host joins the two ends: it makes a pair of sockets for each session, gives
//! one to the file manager ([`Service`]) with the user's id, and the other to the
//! machine's process ([`Client`]). So who a machine is follows from which socket it
//! has, and needs no word of its own.
//!
//! Everything of the host is reached beneath the space's directory, by one module
//! (`space::beneath`) that follows no link and leaves no directory. The messages
//! are taken apart in `fuse`, which is pure: the few that are needed are less than
//! the libraries there are would bring along.

mod access;
mod client;
mod fuse;
#[cfg(any(test, feature = "test-utils"))]
pub mod guest_kernel;
mod manager;
mod names;
mod service;
mod session;
mod space;
#[cfg(test)]
mod transport_tests;
mod wire;

pub use access::{
    AccessError, AccessTable, Grant, MAX_GRANTS, MAX_SPACES, Quota, Right, SpaceEntry,
    TableFileError,
};
pub use client::{Client, OnReply, Sender};
pub use fuse::{MAX_DATA, MAX_REPLY, MAX_REQUEST, REPLY_HEADER, REQUEST_HEADER};
pub use identity::Subject;
pub use manager::{FileManager, ManagerError};
pub use names::{MAX_DEPTH, MAX_FILE_NAME, SpaceName, SpacePath};
pub use service::{BeginError, Service};
pub use session::Session;
pub use space::Usage;
pub use wire::{MAX_IN_FLIGHT, Reply, Request};
