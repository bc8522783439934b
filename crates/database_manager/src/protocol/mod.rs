//! PostgreSQL's protocol 3.0, as far as a broker has to understand it: how a client
//! begins, what it is answered, and where one message of the server's ends. Pure.
//!
//! What is said after the beginning passes through unread: the server holds its
//! clients to their rights, whatever they send.

mod answer;
mod frames;
mod startup;

pub(crate) use answer::{
    Refusal, auth_ok, backend_key, fields_of_error, message_of, negotiate, ready,
};
pub(crate) use frames::Frames;
pub(crate) use startup::{CancelKey, First, MAX_STARTUP, Startup, first};
