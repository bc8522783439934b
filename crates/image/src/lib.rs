//! Guest images assembled from distribution packages, without root and
//! without running what the packages hold for the guest.
//!
//! An [`ImageStore`] holds the finished [`Image`]s of a user and builds them
//! from [`Recipe`]s. A build drives apt with private directories, which
//! verifies every package against the distribution's signed index; unpacks a
//! compiler and a few more tools into the cache; compiles the guest agent and
//! the one driver that the distribution's kernel lacks; and writes kernel, initramfs, root file system and an empty data disk into
//! a directory that appears in the store complete or not at all. What it is
//! doing it tells a [`Progress`].

mod apt;
mod build;
mod cpio;
mod digest;
mod error;
mod guest_programs;
mod kernel;
mod lock;
mod memory_driver;
mod mirror;
mod modules;
mod process;
mod progress;
mod recipe;
mod root;
mod store;
mod tools;
mod unpack;

pub use apt::Package;
pub use error::BuildError;
pub use guest_programs::{BENCH_SOURCE, bench_sources};
pub use progress::{Phase, Progress, Silent};
pub use recipe::Recipe;
pub use store::{BenchBoot, Dirs, Image, ImageStore, Manifest};
