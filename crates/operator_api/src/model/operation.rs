//! Commands that take their time.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Command, CompactPlan, Outcome};
use crate::problem::Problem;

/// A command under way, or one that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Its number, counted from the host's start.
    pub id: u64,
    /// What it does.
    pub command: Command,
    /// Who asked: a token's id, or `local`.
    pub by: String,
    /// How far it is.
    pub state: OperationState,
    /// Somebody asked it to end early: it does so at the next point where it can.
    pub cancelling: bool,
    /// When it began.
    pub started: u64,
    /// When it ended.
    pub ended: Option<u64>,
    /// What it said last.
    pub note: Option<String>,
    /// Bytes copied by the move in hand.
    pub done: u64,
    /// Bytes that move is to copy; 0 before that is known.
    pub total: u64,
    /// The plan it carries out.
    pub plan: Option<CompactPlan>,
    /// What it did, if it succeeded.
    pub result: Option<Outcome>,
    /// Why it did not, if it failed.
    pub error: Option<Problem>,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// It is under way.
    Running,
    /// It did what it should.
    Succeeded,
    /// It did not; its error says why and what has changed all the same.
    Failed,
}
