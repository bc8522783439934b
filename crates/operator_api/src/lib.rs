//! The operator's station: everything an operator can see and do, by HTTP.
//!
//! ```text
//! browser, curl, monitoring ── HTTP ──► routes ── Operator (the host; may block)
//!                                          │
//!                     host ── publish ──► Station: state, events, operations, metrics
//! ```
//!
//! A host implements [`Operator`] and tells its [`Station`] what there is
//! whenever that changes; [`Running`] serves both. Whoever only looks never
//! reaches the host: answers come from what it told last.
//!
//! Everything a client can make the station hold is bounded: connections,
//! streams, bodies, time, operations, events ([`Settings`], `events`,
//! `station`). Who may do what is decided in `access`, what every request must
//! be like in `guard`.

mod access;
mod console;
mod events;
mod extract;
mod guard;
mod metrics;
pub mod model;
mod operator;
mod problem;
mod routes;
mod server;
mod socket;
mod station;
mod terminal;

pub use events::{Changes, Event, Everything, Gone, GoneMember, Measured, Member, Quantity};
pub use identity::Role;
pub use metrics::Metrics;
pub use operator::{Console, NewSize, Operator, Progress, Refusal, WayIn, Why, Wish};
pub use problem::{More, Problem};
pub use routes::openapi;
pub use server::{Running, Settings, StartError, Tcp};
pub use station::{Snapshot, Station};
