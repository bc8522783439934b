//! An LU 6.2 half-session as a pure state machine.
//!
//! A *conversation* joins two programs, each at a half-session of its own. They
//! take turns: one sends, the other receives, until the sender gives up the
//! turn, asks for confirmation or ends the conversation.
//!
//! [`HalfSession`] is one side. Its owner, a gateway or a client, issues verbs
//! in the name of a program, moves [`HalfSession::output`] to a byte stream and
//! [feeds](HalfSession::feed) what the stream brings; a verb that waits for the
//! partner says so, and its [code](HalfSession::completion) is there later. It
//! knows no socket, thread or clock, and holds at most
//! [`MAX_HELD`](half_session::MAX_HELD) bytes whatever the partner does.
//!
//! [`Attach`] is what opens a conversation (FMH-5), [`Sense`] what an error is
//! called on the wire (in an [`Fmh7`]), [`ReturnCode`] what a program gets to
//! see of it (CPI-C's numbers). How all this lies on a byte stream is in
//! [`frame`]; one stream carries one conversation.
//!
//! ```
//! use conversation::fmh5::TpName;
//! use conversation::half_session::{Confirmation, Outcome, Received};
//! use conversation::{Attach, HalfSession, ReturnCode};
//!
//! let mut user = HalfSession::new();
//! let _ = user.allocate(&Attach::new(TpName::new("mail")))?;
//! let _ = user.send_data(b"list")?;
//! assert_eq!(user.deallocate(Confirmation::Confirm)?, Outcome::Waiting);
//!
//! let mut machine = HalfSession::new();
//! machine.feed(user.output())?;
//! user.drain(user.output().len());
//! assert_eq!(machine.accept()?.tpn.name, "mail");
//! let Received::Data(data) = machine.receive_and_wait(100)? else { panic!() };
//! assert_eq!(data.bytes, b"list");
//! let _ = machine.confirmed()?;
//!
//! user.feed(machine.output())?;
//! assert_eq!(user.completion(), Some(ReturnCode::Ok));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod ebcdic;
pub mod fmh5;
pub mod fmh7;
pub mod frame;
pub mod gds;
pub mod half_session;
mod record;
mod return_code;
mod sense;

pub use fmh5::Attach;
pub use fmh7::Fmh7;
pub use half_session::HalfSession;
pub use return_code::ReturnCode;
pub use sense::Sense;
