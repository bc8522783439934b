//! What is said to and by a relocation.

use std::fmt;
use std::time::Duration;

use main_storage::{MovePlan, StorageRange};

/// An I/O processor of the partition: its index in [`Request::devices`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device(pub usize);

/// How long the guest may be kept waiting for its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For every vCPU to stop and every I/O processor to become idle.
    pub quiesce: Duration,
    /// For every I/O processor to acknowledge its address limits.
    pub acknowledge: Duration,
}

impl Default for Limits {
    /// 10 seconds each.
    fn default() -> Self {
        Self { quiesce: Duration::from_secs(10), acknowledge: Duration::from_secs(10) }
    }
}

/// Whether the guest is stopped while its storage is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It runs on; a vCPU or I/O processor waits only if it stores into what
    /// is being copied. It is stopped only for the new address limits.
    #[default]
    Live,
    /// It is stopped all the time.
    Stop,
}

/// What the operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where the partition is.
    pub from: StorageRange,
    /// Where it should begin, in bytes.
    pub origin: u64,
    /// The names of all its I/O processors.
    pub devices: Vec<String>,
    /// How long to wait for them.
    pub limits: Limits,
    /// How to copy.
    pub mode: Mode,
}

/// What the driver must do. It answers with the event named, or with none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask the resource manager to hold the range at `origin`: answers
    /// [`Event::Reserved`] or [`Event::RangeRefused`]. The guest runs.
    Reserve {
        /// Offset in main storage, in bytes.
        origin: u64,
    },
    /// Make mapping and memory ready at the destination:
    /// [`Event::Prepared`] or [`Event::StorageFailed`]. The guest runs.
    Prepare(MovePlan),
    /// Stop every vCPU: [`Event::VcpusStopped`].
    StopVcpus,
    /// Let an I/O processor take up no further request: [`Event::Idle`] once
    /// it has none in hand.
    Quiesce(Device),
    /// Ask the resource manager whether the range held is still ours (step
    /// 203): [`Event::RangeGranted`] or [`Event::RangeRefused`].
    CheckRange(MovePlan),
    /// Copy pages and keys, and map the new range into the window:
    /// [`Event::Copied`], or [`Event::StorageFailed`] when the window still
    /// shows the old range, or [`Event::StorageLost`].
    Copy,
    /// Move pages and keys chunk by chunk while the guest runs, and show each
    /// chunk at its new place: [`Event::Copied`], or [`Event::StorageFailed`]
    /// when everything has slid back, or [`Event::StorageLost`].
    Slide,
    /// Tell an idle I/O processor its range (SALE): [`Event::Acknowledged`]
    /// with that range, or [`Event::LimitsFailed`].
    SetAddressLimits(Device, StorageRange),
    /// Undo [`Action::Copy`] or [`Action::Slide`]; after a slide, the guest may
    /// run: [`Event::TakenBack`] or [`Event::StorageLost`].
    TakeBack,
    /// Undo [`Action::Prepare`]. No answer.
    Unprepare,
    /// An I/O processor that does not know where its storage is: it must never
    /// be resumed, whatever it says later. No answer.
    TakeOutOfService(Device),
    /// Let an I/O processor take up requests again. No answer.
    ResumeIo(Device),
    /// Let every vCPU enter the guest; takes back a stop that is still under
    /// way. No answer.
    ResumeVcpus,
    /// Give the old range back to the host: [`Event::Finished`]. The guest
    /// runs.
    Finish,
    /// Tell the operator. The resource manager commits or abandons what it
    /// holds, as the outcome says. The last action.
    Report(Report),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The resource manager holds the destination for us.
    Reserved(MovePlan),
    /// The resource manager confirmed it.
    RangeGranted,
    /// The resource manager refused.
    RangeRefused(RangeRefused),
    /// The destination is ready.
    Prepared,
    /// Every vCPU is outside the guest.
    VcpusStopped,
    /// The I/O processor has nothing in hand and takes up nothing.
    Idle(Device),
    /// The window shows the new range.
    Copied(Copied),
    /// The window shows the old range again, contents intact.
    TakenBack,
    /// Preparing or copying failed; the window shows the old range.
    StorageFailed(String),
    /// The window shows neither range.
    StorageLost(String),
    /// The I/O processor uses this range from now on.
    Acknowledged(Device, StorageRange),
    /// The I/O processor refused to use this range.
    LimitsFailed(Device, StorageRange, String),
    /// The old range was given back, or why not: nobody must get it then.
    Finished(Result<(), String>),
    /// Only time has passed.
    Tick,
}

/// Why the resource manager refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRefused {
    /// In its own words.
    pub message: String,
    /// The names of the partitions in the way.
    pub in_the_way: Vec<String>,
}

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// Bytes of pages with content.
    pub bytes: u64,
    /// Nanoseconds that copying them took.
    pub nanos: u64,
}

/// Why a partition was not moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The resource manager says no. The operator is to blame.
    #[error("{}", .0.message)]
    Range(RangeRefused),
    /// The vCPUs did not leave the guest in time. The host is to blame.
    #[error("the vCPUs did not stop within {}; the host may be overloaded, try again later", Seconds(*.0))]
    VcpusRunning(Duration),
    /// I/O processors were still busy when the limit ran out.
    #[error(
        "still busy after {}: {}; wait for their transfers to end, or allow more time",
        Seconds(*.limit),
        .devices.join(", ")
    )]
    Busy {
        /// Their names.
        devices: Vec<String>,
        /// The limit.
        limit: Duration,
    },
    /// I/O processors did not take their new range.
    #[error("not every device took its new address limits: {}", .0.join("; "))]
    AddressLimits(Vec<String>),
    /// The host could not copy or map. The host is to blame.
    #[error("{0}")]
    Storage(String),
}

impl Reason {
    /// Partitions in the way, if that is the reason.
    #[must_use]
    pub fn in_the_way(&self) -> &[String] {
        match self {
            Self::Range(refused) => &refused.in_the_way,
            _ => &[],
        }
    }

    /// Devices that were still busy, if that is the reason.
    #[must_use]
    pub fn busy_devices(&self) -> &[String] {
        match self {
            Self::Busy { devices, .. } => devices,
            _ => &[],
        }
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}

/// How a relocation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest runs in its new range.
    Moved {
        /// From where to where.
        plan: MovePlan,
        /// What was copied.
        copied: Copied,
        /// Why the old range could not be given back; nobody must get it.
        not_cleared: Option<String>,
    },
    /// The guest runs where it was; nothing has changed but, at worst, devices
    /// that are out of service.
    ResumedWhereItWas {
        /// Why.
        reason: Reason,
        /// Names of devices that could not even be told their old range again.
        out_of_service: Vec<String>,
    },
    /// The host lost the mapping of the storage: the guest stays stopped for
    /// good. Not a consequence of anything a device does.
    Lost(String),
}

/// The result of the command (step 211).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// From the order to stop to the order to resume; zero if never stopped.
    pub pause: Duration,
}
