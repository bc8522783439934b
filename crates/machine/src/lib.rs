//! One virtual machine: boot, vCPU control, I/O processors.
