//! Which blocks are plugged, and what may change: pure, no thread, no storage.

use std::ops::Range;

use super::request::{Extent, Request, Response};

/// Bytes of a block: what is plugged and unplugged at once (5.15.4,
/// `block_size`).
pub const BLOCK: u64 = 2 << 20;

/// What the host allows at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    /// Bytes from the region's start that requests may name.
    pub(super) usable: u64,
    /// Bytes that may be plugged.
    pub(super) requested: u64,
}

/// What comes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) response: Response,
    /// What was unplugged by it, in bytes from the region's start.
    pub(super) freed: Vec<Range<u64>>,
}

/// The blocks of a region.
#[derive(Debug)]
pub(super) struct Blocks {
    // `count` of the entries are true, the last of them before `end`.
    plugged: Vec<bool>,
    count: u64,
    end: usize,
    address: u64,
}

impl Blocks {
    /// A region of `size` bytes, a multiple of [`BLOCK`], at guest physical
    /// `address`, nothing plugged.
    pub(super) fn new(address: u64, size: u64) -> Self {
        let blocks = usize::try_from(size / BLOCK).unwrap_or(0);
        Self { plugged: vec![false; blocks], count: 0, end: 0, address }
    }

    /// Bytes plugged.
    pub(super) fn plugged(&self) -> u64 {
        self.count * BLOCK
    }

    /// Bytes from the region's start to the end of the last plugged block.
    pub(super) fn end(&self) -> u64 {
        self.end as u64 * BLOCK
    }

    /// Carries `request` out if it may be (5.15.6). `backed` says whether there
    /// is storage for so many bytes from a guest physical address.
    pub(super) fn answer(
        &mut self,
        request: Request,
        allowed: Allowed,
        backed: impl Fn(u64, u64) -> bool,
    ) -> Answer {
        let mut freed = Vec::new();
        let response = match request {
            Request::Plug(extent) => self.plug(extent, allowed, backed),
            Request::Unplug(extent) => self.unplug(extent, allowed, &mut freed),
            Request::UnplugAll => {
                freed = self.runs();
                self.set(0..self.end, false);
                Response::Acknowledged
            }
            Request::State(extent) => match self.find(extent, allowed) {
                Some(blocks) => self.state(blocks),
                None => Response::Error,
            },
            Request::Unknown => Response::Error,
        };
        Answer { response, freed }
    }

    fn plug(
        &mut self,
        extent: Extent,
        allowed: Allowed,
        backed: impl Fn(u64, u64) -> bool,
    ) -> Response {
        let Some(blocks) = self.find(extent, allowed) else { return Response::Error };
        if self.state(blocks.clone()) != Response::Unplugged {
            return Response::Error;
        }
        let bytes = blocks.len() as u64 * BLOCK;
        if self.plugged() + bytes > allowed.requested {
            return Response::Refused;
        }
        // The host has promised more than there is, or takes it back just now:
        // the driver tries again later.
        if !backed(extent.address, bytes) {
            return Response::Busy;
        }
        self.set(blocks, true);
        Response::Acknowledged
    }

    fn unplug(
        &mut self,
        extent: Extent,
        allowed: Allowed,
        freed: &mut Vec<Range<u64>>,
    ) -> Response {
        let Some(blocks) = self.find(extent, allowed) else { return Response::Error };
        if self.state(blocks.clone()) != Response::Plugged {
            return Response::Error;
        }
        freed.push(bytes(&blocks));
        self.set(blocks, false);
        Response::Acknowledged
    }

    /// The blocks that `extent` names: at least one, aligned, all usable.
    fn find(&self, extent: Extent, allowed: Allowed) -> Option<Range<usize>> {
        let offset = extent.address.checked_sub(self.address)?;
        let end = offset.checked_add(u64::from(extent.blocks) * BLOCK)?;
        if offset % BLOCK != 0 || extent.blocks == 0 || end > allowed.usable {
            return None;
        }
        let blocks = usize::try_from(offset / BLOCK).ok()?..usize::try_from(end / BLOCK).ok()?;
        (blocks.end <= self.plugged.len()).then_some(blocks)
    }

    fn state(&self, blocks: Range<usize>) -> Response {
        let length = blocks.len();
        let plugged = self.plugged.get(blocks).unwrap_or(&[]).iter().filter(|one| **one).count();
        match plugged {
            0 => Response::Unplugged,
            all if all == length => Response::Plugged,
            _ => Response::Mixed,
        }
    }

    fn set(&mut self, blocks: Range<usize>, plugged: bool) {
        let Some(entries) = self.plugged.get_mut(blocks.clone()) else { return };
        let before = entries.iter().filter(|one| **one).count() as u64;
        entries.fill(plugged);
        self.count -= before;
        if plugged {
            self.count += blocks.len() as u64;
            self.end = self.end.max(blocks.end);
        } else {
            let below = self.plugged.get(..self.end).unwrap_or(&[]);
            self.end = below.iter().rposition(|one| *one).map_or(0, |last| last + 1);
        }
    }

    /// What is plugged, as few ranges as possible.
    fn runs(&self) -> Vec<Range<u64>> {
        let mut runs = Vec::new();
        let mut at = 0;
        for run in self.plugged.chunk_by(|one, next| one == next) {
            let blocks = at..at + run.len();
            at = blocks.end;
            if run.first() == Some(&true) {
                runs.push(bytes(&blocks));
            }
        }
        runs
    }
}

fn bytes(blocks: &Range<usize>) -> Range<u64> {
    blocks.start as u64 * BLOCK..blocks.end as u64 * BLOCK
}
