//! How a command on main storage ended, or would: for programs, as `--json` prints
//! it.

use operator_api::Problem;
use operator_api::model::Outcome;
use operator_client::ClientError;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Failure;

/// How it ended, or would.
pub(crate) enum Ended<P> {
    /// It was done.
    Done(Outcome),
    /// It would be possible.
    Would(P),
    /// Main storage, as it is, does not allow it.
    Refused(Box<Problem>),
}

impl<P> Ended<P> {
    /// What was done; errors that are no refusals stay errors.
    pub(crate) fn done(result: Result<Outcome, ClientError>) -> Result<Self, Failure> {
        Self::of(result.map(Self::Done))
    }

    /// What would be done.
    pub(crate) fn would(result: Result<P, ClientError>) -> Result<Self, Failure> {
        Self::of(result.map(Self::Would))
    }

    fn of(result: Result<Self, ClientError>) -> Result<Self, Failure> {
        match result {
            Err(error) if error.problem("conflict").is_some() => match error {
                ClientError::Refused(problem) => Ok(Self::Refused(problem)),
                other => Err(other.into()),
            },
            result => Ok(result?),
        }
    }
}

impl<P: Serialize> Ended<P> {
    /// As JSON: `would` is what a plan is called, `more` the fields that what was
    /// done, or would be, has besides.
    pub(crate) fn json(&self, would: &str, more: &[(&str, Value)]) -> Value {
        let mut value = match self {
            Self::Done(outcome) => json!(outcome),
            Self::Would(plan) => {
                let mut plan = json!(plan);
                plan["result"] = json!(would);
                plan
            }
            Self::Refused(problem) => {
                return json!({
                    "result": "refused",
                    "reason": problem.detail,
                    "in_the_way": problem.more.in_the_way,
                    "busy_devices": problem.more.busy_devices,
                });
            }
        };
        for (name, field) in more {
            value[*name] = field.clone();
        }
        value
    }
}
