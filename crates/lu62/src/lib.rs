//! The user's end of LU 6.2 conversations: CPI-C's calls under Rust names.
//!
//! [`Request`] is CPI-C's *initialize* and its *set* calls; its
//! [`allocate`](Request::allocate) makes a [`Conversation`], which has the
//! others. All block. A call that did not do what it should returns a
//! [`CallError`], which knows CPI-C's [`ReturnCode`].
//!
//! A program in a pool reads and writes byte streams and has no verbs, so the
//! gateway takes turns for it: it sends while this side receives, and gives the
//! right to send back when [`request_to_send`](Conversation::request_to_send)
//! asks for it. Send no more than [`TURN`] bytes before receiving, unless the
//! program is known to read all its input before it writes.
//!
//! [`Conversation::join`] joins descriptors and knows these rules.
//!
//! The test `the_example_of_the_documentation` in `crates/gateway` runs this:
//!
//! ```no_run
//! use lu62::{Incoming, Partner, Request};
//!
//! let mut request = Request::initialize(Partner::Socket("/run/berth/lu62.sock".into()));
//! request.set_tp_name("serve/mailbox").set_security_same("alice");
//! let mut mail = request.allocate()?;
//! mail.send_data(b"list\n")?;
//! if let Incoming::Data(data) = mail.receive()? {
//!     println!("{}", String::from_utf8_lossy(&data.bytes));
//! }
//! mail.request_to_send()?;
//! while mail.state() == lu62::State::Receive {
//!     mail.receive()?;
//! }
//! // Returns once the machine has confirmed that it is done with this user.
//! mail.deallocate()?;
//! # Ok::<(), lu62::CallError>(())
//! ```

mod call;
mod error;
mod join;
mod request;
mod transport;

pub use call::{Conversation, Incoming};
pub use conversation::ReturnCode;
pub use conversation::fmh5::SyncLevel;
pub use conversation::half_session::{Abend, Confirmation, Data, MAX_SEND, Origin, State, Status};
pub use error::{CallError, ConnectError};
pub use join::JoinError;
pub use request::Request;
pub use transport::Partner;

/// Bytes that can be sent in one turn whatever the program does.
pub const TURN: usize = 32 * 1024;
