//! How a build tells what it is doing.

use std::fmt;

/// What a build is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Fetching and verifying the package index.
    Index,
    /// Downloading packages.
    Download,
    /// Unpacking the compiler and the other tools.
    Tools,
    /// Compiling the guest's programs.
    Agent,
    /// Taking kernel and modules out of their package.
    Kernel,
    /// Compiling the guest's memory driver.
    MemoryDriver,
    /// Putting together the guest's root file system.
    Root,
    /// Putting the finished image in its place.
    Publish,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Index => "fetching the package index",
            Self::Download => "downloading packages",
            Self::Tools => "unpacking tools",
            Self::Agent => "compiling the guest agent",
            Self::Kernel => "preparing the kernel",
            Self::MemoryDriver => "compiling the guest's memory driver",
            Self::Root => "assembling the root file system",
            Self::Publish => "publishing the image",
        })
    }
}

/// Receives a build's progress.
pub trait Progress {
    /// A phase begins. A build may skip phases whose results are cached.
    fn phase(&self, phase: Phase);
    /// `done` of `total` of the current phase are through: bytes for a
    /// download, thousandths for an index, packages for an unpacking.
    fn advance(&self, done: u64, total: u64);
    /// Something the user should know, such as a wait and its cause.
    fn notice(&self, message: &str);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn phase(&self, _: Phase) {}
    fn advance(&self, _: u64, _: u64) {}
    fn notice(&self, _: &str) {}
}
