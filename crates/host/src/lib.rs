//! The daemon: partition control, resource manager, worker processes.
