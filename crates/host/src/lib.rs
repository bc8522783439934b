//! The daemon: partition control, resource manager, worker processes.
//!
//! A [`Host`] is made of a checked [`HostFile`] and a [`StateDir`]. It owns
//! main storage and its map, answers operators by HTTP (`operator_api`), and
//! starts one worker process per partition: the same program, run again as
//! [`worker::main`]. A worker maps its own range only, drives its machine, and
//! serves its clients' sessions itself: the host hands it the client's
//! connection, or copies what comes by the network.
//!
//! ```text
//! client ── api.sock ──► Host ── workers/NAME.sock ──► worker ── machine
//!    └───────── exec, console: the connection itself ─────►┘
//! ```
//!
//! A worker's death costs its own partition only. The host's death costs no
//! guest: workers live in sessions of their own and keep listening.

mod daemon;
pub mod database;
pub mod files;
pub mod host_file;
mod journal;
pub mod keeper;
mod link;
mod lockdown;
mod outcomes;
mod state_dir;
pub mod worker;

pub use daemon::{
    GuestImage, Host, HostConfig, HostError, Images, Leftover, clean_up, images_in_use, online_cpus,
};
pub use host_file::HostFile;
pub use state_dir::{Lock, StateDir, StateDirError};

/// An error's message with those of its causes.
#[must_use]
pub fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Many messages name their cause already.
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
