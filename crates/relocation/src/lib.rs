//! The phase machine of a relocation and its undo: pure.
//!
//! A [`Relocation`] is one relocation of one partition, live or stopped: [`Event`]s
//! go in, [`Action`]s come out, and it ends with one [`Report`]: either moved,
//! or resumed where it was. It has no clock; the time comes in with events.
//!
//! Its one owner is the partition's worker, which implements [`Driver`] and
//! calls [`drive`]. What an action means in threads, devices and mappings is
//! the driver's business; in which order they may happen is decided here.

mod driver;
mod phase;
mod words;

pub use driver::{Driver, drive};
pub use phase::Relocation;
pub use words::{
    Action, Copied, Device, Event, Limits, Mode, Outcome, RangeRefused, Reason, Report, Request,
};
