//! Who is turned away at the gateway can come again as often as it likes: the
//! audit log has a few of them each second, and how many others there were.

use std::time::{Duration, Instant};

/// Records in one [`PERIOD`].
const MOST: u32 = 10;
const PERIOD: Duration = Duration::from_secs(1);

/// Counts them.
#[derive(Debug, Default)]
pub(in crate::daemon) struct TurnedAway {
    /// The present period's beginning, and records in it.
    period: Option<(Instant, u32)>,
    omitted: u64,
}

impl TurnedAway {
    /// Whether one more is to be written down, and how many were omitted before it.
    pub(super) fn count(&mut self, now: Instant) -> Option<u64> {
        let (since, records) = match self.period {
            Some((since, records)) if now.saturating_duration_since(since) < PERIOD => {
                (since, records)
            }
            _ => (now, 0),
        };
        if records >= MOST {
            self.omitted += 1;
            return None;
        }
        self.period = Some((since, records + 1));
        Some(std::mem::take(&mut self.omitted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_written_down() {
        let (mut away, start) = (TurnedAway::default(), Instant::now());
        let written = (0..1000).filter(|_| away.count(start) == Some(0)).count();
        assert_eq!(written, 10);
        assert_eq!(away.count(start + PERIOD), Some(990));
        assert_eq!(away.count(start + PERIOD), Some(0));
    }
}
