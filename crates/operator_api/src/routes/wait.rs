//! How long an answer may wait for the end of an operation.

use std::time::Duration;

use serde::Deserialize;
use utoipa::IntoParams;

use crate::problem::Problem;

/// Longest that an answer waits for an operation.
const MAX_WAIT: u32 = 60;

/// How long to wait for the end.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    /// Seconds to wait for the end of the operation before answering; none without.
    #[param(minimum = 0, maximum = 60)]
    wait: Option<u32>,
}

impl Wait {
    pub(super) fn bounded(self) -> Result<Option<Duration>, Problem> {
        match self.wait {
            Some(seconds) if seconds > MAX_WAIT => {
                Err(Problem::malformed(format!("wait is 0 to {MAX_WAIT} seconds")))
            }
            seconds => Ok(seconds.map(|seconds| Duration::from_secs(seconds.into()))),
        }
    }
}
