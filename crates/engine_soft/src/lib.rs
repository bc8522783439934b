//! An RV64GC CPU in software behind the engine interface.
