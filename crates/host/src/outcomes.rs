//! What commands on main storage say, and how they end. Sizes and offsets in
//! bytes.

/// What a command says before it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// Something to tell the operator.
    Note(String),
    /// How far a copy is.
    Copying {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// What it is going to do.
    Plan(Plan),
}

/// How a move ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MoveOutcome {
    /// The partition is at its new origin.
    Moved {
        /// Old origin.
        from: u64,
        /// New origin.
        to: u64,
        /// Bytes copied; pages without content are not.
        bytes: u64,
        /// `"down"` or `"up"`: the order of the copy.
        direction: String,
        /// Microseconds for which the guest was stopped.
        pause_us: u64,
        /// Bytes copied per second of copying.
        copy_bytes_per_second: u64,
    },
    /// It would be possible.
    WouldMove {
        /// Old origin.
        from: u64,
        /// New origin.
        to: u64,
        /// Bytes to copy at most.
        bytes: u64,
        /// `"down"` or `"up"`.
        direction: String,
    },
    /// Nothing has changed.
    Refused {
        /// Cause and remedy.
        reason: String,
        /// Partitions that use the range.
        in_the_way: Vec<String>,
        /// Devices still busy when the limit ran out.
        busy_devices: Vec<String>,
    },
}

/// One partition's part in an exchange, or one move of a compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relocated {
    /// The partition.
    pub(crate) name: String,
    /// Old origin.
    pub(crate) from: u64,
    /// New origin.
    pub(crate) to: u64,
    /// Its size.
    pub(crate) size: u64,
}

/// How an exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExchangeOutcome {
    /// Both are at their new origins.
    Exchanged {
        /// Both partitions, as they were named.
        partitions: Vec<Relocated>,
        /// Bytes of pages with content that were swapped.
        bytes: u64,
        /// Microseconds for which the guest that was stopped longer was stopped.
        pause_us: u64,
        /// Bytes swapped per second of swapping.
        copy_bytes_per_second: u64,
    },
    /// It would be possible.
    WouldExchange {
        /// Both partitions, as they were named.
        partitions: Vec<Relocated>,
    },
    /// Nothing has changed, unless the reason says that a partition has failed.
    Refused {
        /// Cause and remedy.
        reason: String,
        /// Partitions in the way.
        in_the_way: Vec<String>,
        /// Devices still busy when the limit ran out.
        busy_devices: Vec<String>,
    },
}

/// How `expand` or `shrink` ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ResizeOutcome {
    /// The partition has another size.
    Resized {
        /// The partition.
        name: String,
        /// Size before.
        from: u64,
        /// Size now.
        to: u64,
        /// How much of it the guest uses as memory; none if it does not run.
        guest_bytes: Option<u64>,
        /// Bytes that were asked back and that the guest did not give.
        kept: u64,
        /// Partitions that made room first.
        moved: Vec<Relocated>,
        /// Microseconds for which the guest was stopped.
        pause_us: u64,
    },
    /// It would be possible.
    WouldResize {
        /// The partition.
        name: String,
        /// Size now.
        from: u64,
        /// Size then.
        to: u64,
        /// Partitions that would make room first, in order.
        moves: Vec<Relocated>,
    },
    /// The size has not changed. What was moved to make room stays moved.
    Refused {
        /// Cause and remedy.
        reason: String,
        /// Partitions in the way.
        in_the_way: Vec<String>,
        /// Devices still busy when the limit ran out.
        busy_devices: Vec<String>,
        /// Partitions that were moved before.
        moved: Vec<Relocated>,
    },
}

/// What a compaction is going to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The moves, in order.
    pub(crate) moves: Vec<Relocated>,
    /// Bytes they copy at most.
    pub(crate) bytes: u64,
    /// Origin of the free range there is then.
    pub(crate) free_origin: u64,
    /// Its size.
    pub(crate) free_size: u64,
    /// Whether no plan copies less.
    pub(crate) least: bool,
}

/// How a compaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CompactOutcome {
    /// The free range is there.
    Compacted {
        /// The plan, all of which was done.
        plan: Plan,
    },
    /// It would be possible.
    WouldCompact {
        /// The plan.
        plan: Plan,
    },
    /// It was ended before the plan was done; what was moved stays moved.
    Stopped {
        /// Cause and remedy.
        reason: String,
        /// The moves that were done.
        moved: Vec<Relocated>,
        /// How many were left.
        left: usize,
    },
    /// Nothing has changed.
    Refused {
        /// Cause and remedy.
        reason: String,
        /// Partitions that may not be moved now and are in the way.
        in_the_way: Vec<String>,
    },
}
