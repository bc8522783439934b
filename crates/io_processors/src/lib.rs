//! Virtio devices: the host side of what a guest reads and writes.
