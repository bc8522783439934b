//! The phase machine of a relocation and its undo: pure.
