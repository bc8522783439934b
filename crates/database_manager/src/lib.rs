//! The users' databases: who is which role of a PostgreSQL, and the broker to it.
//!
//! A [`Broker`] keeps the identity table ([`LoginTable`]): which user or group is
//! which role of which database, within which [`Limits`]. A program in a machine
//! connects as to any PostgreSQL, without a password and whatever it says it is;
//! the broker looks up who the machine is, connects to the server as that role, with
//! a password that only it has, and passes bytes both ways.
//!
//! The host joins the two ends: it makes a pair of sockets for each session
//! ([`session_pair`]), gives one to the database manager ([`Service`]) with the
//! user's id, and the other to the machine's process ([`Client`]), which asks on it
//! for connections. So who a machine is follows from which socket it has, and needs
//! no word of its own.
//!
//! What a client says at its beginning is taken apart in `protocol`, which is pure.
//! What it says later is the server's to judge: a role that could become another is
//! not let in at all.

mod broker;
mod client;
mod connection;
#[cfg(feature = "test-utils")]
mod exercise;
mod finish;
mod names;
mod protocol;
mod registry;
mod relay;
mod server;
mod service;
mod settings;
mod spare;
mod table;
#[cfg(feature = "test-utils")]
pub mod test_server;
mod wire;

pub use broker::{Broker, BrokerError, Used, UsedLogin};
pub use client::Client;
#[cfg(feature = "test-utils")]
pub use exercise::exercise;
pub use identity::Subject;
pub use names::SqlName;
pub use registry::MAX_OF_MACHINE;
pub use server::{Address, AddressError, MeasureError, ServerError, ServerSpec, time_of_login};
pub use service::{BeginError, Lingers, Service};
pub use table::{Limits, Login, LoginTable, MAX_CONNECTIONS, MAX_ROWS, TableError, TableFileError};
pub use wire::session_pair;
