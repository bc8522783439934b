//! The guest's side of a device, for tests.
