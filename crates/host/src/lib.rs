//! The daemon: partition control, resource manager, worker processes.

pub mod host_file;
