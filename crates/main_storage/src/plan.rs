//! How partitions get from one range to another, page by page.

mod exchange;
mod shift;

pub use exchange::{ExchangePlan, ExchangeStep, ExchangeSteps};
pub use shift::{Direction, MovePlan, PageStep, PageSteps, PlanError};
