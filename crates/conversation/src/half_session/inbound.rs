//! What the partner has sent and the program has not yet received.

use std::collections::VecDeque;

use super::{MARK_COST, ProtocolError, Status, WINDOW};
use crate::ReturnCode;
use crate::fmh5::ConversationType;
use crate::gds::GdsId;
use crate::record::RecordTracker;

/// Something other than data, at its place among the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// The partner gave up the turn or asks for confirmation.
    Status(Status),
    /// The partner reports an error or the conversation is over.
    Code { code: ReturnCode, log: Vec<u8> },
}

#[derive(Debug, Clone)]
struct PlacedMark {
    /// Bytes of the stream in front of it.
    at: u64,
    /// Bytes of the window that it takes.
    cost: usize,
    mark: Mark,
}

/// What the program gets next.
#[derive(Debug)]
pub(super) enum Next {
    Nothing,
    Data { bytes: Vec<u8>, complete: bool, id: GdsId },
    Mark(Mark),
}

/// The queue, and the receiving half of the flow control: the partner may send
/// [`WINDOW`] bytes more than the program has taken.
#[derive(Debug, Clone)]
pub(super) struct Inbound {
    bytes: VecDeque<u8>,
    marks: VecDeque<PlacedMark>,
    /// Bytes taken out and put in since the beginning.
    taken: u64,
    put: u64,
    /// Where the program is in its logical records, and where the partner is.
    reader: RecordTracker,
    writer: RecordTracker,
    /// Bytes the partner may still send.
    window: usize,
    /// Bytes to be granted again.
    due: usize,
}

impl Inbound {
    pub(super) fn new(conversation_type: ConversationType) -> Self {
        Self {
            bytes: VecDeque::new(),
            marks: VecDeque::new(),
            taken: 0,
            put: 0,
            reader: RecordTracker::new(conversation_type),
            writer: RecordTracker::new(conversation_type),
            window: WINDOW,
            due: 0,
        }
    }

    /// Bytes of the window in use.
    pub(super) fn held(&self) -> usize {
        self.bytes.len() + self.marks.iter().map(|mark| mark.cost).sum::<usize>()
    }

    /// Puts bytes of logical records in.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.charge(bytes.len())?;
        self.writer.advance(bytes)?;
        self.bytes.extend(bytes);
        self.put += bytes.len() as u64;
        Ok(())
    }

    /// Drops bytes that came while the queue is being purged.
    pub(super) fn discard(&mut self, cost: usize) -> Result<(), ProtocolError> {
        self.charge(cost)?;
        self.due += cost;
        Ok(())
    }

    /// True if the partner has finished the logical record it began.
    pub(super) fn at_boundary(&self) -> bool {
        self.writer.at_boundary()
    }

    /// The partner begins a new logical record with its next byte.
    pub(super) fn restart_records(&mut self) {
        self.writer.reset();
    }

    /// Puts in a mark that the turn or the conversation's end bounds in number.
    pub(super) fn mark(&mut self, mark: Mark) {
        self.marks.push_back(PlacedMark { at: self.put, cost: 0, mark });
    }

    /// Puts in a report of an error, which takes its share of the window.
    pub(super) fn report(
        &mut self,
        code: ReturnCode,
        log: Vec<u8>,
        unit: usize,
    ) -> Result<(), ProtocolError> {
        let cost = unit + MARK_COST;
        self.charge(cost)?;
        self.writer.reset();
        let mark = Mark::Code { code, log };
        self.marks.push_back(PlacedMark { at: self.put, cost, mark });
        Ok(())
    }

    fn charge(&mut self, cost: usize) -> Result<(), ProtocolError> {
        self.window = self.window.checked_sub(cost).ok_or(ProtocolError::WindowExceeded)?;
        Ok(())
    }

    /// Bytes to grant the partner now, if they are enough for a record of
    /// their own.
    pub(super) fn take_grant(&mut self) -> u32 {
        if self.due < WINDOW / 4 {
            return 0;
        }
        self.window += self.due;
        // At most WINDOW.
        std::mem::take(&mut self.due) as u32
    }

    /// Takes out the mark in front of all data, if it is of the kind wanted.
    pub(super) fn take_mark(&mut self, wanted: impl Fn(&Mark) -> bool) -> Option<Mark> {
        let front = self.marks.front()?;
        if front.at != self.taken || !wanted(&front.mark) {
            return None;
        }
        let front = self.marks.pop_front()?;
        self.due += front.cost;
        if matches!(front.mark, Mark::Code { .. }) {
            self.reader.reset();
        }
        Some(front.mark)
    }

    /// Drops everything. If the conversation is over, so that nothing else can
    /// come, its end is what remains.
    pub(super) fn purge(&mut self) -> Option<(ReturnCode, Vec<u8>)> {
        self.due += self.held();
        self.bytes.clear();
        self.taken = self.put;
        self.reader.reset();
        let last = self.marks.drain(..).next_back();
        match last.map(|placed| placed.mark) {
            Some(Mark::Code { code, log }) if !code.is_error_report() => Some((code, log)),
            _ => None,
        }
    }

    /// Takes out what comes next: up to `max` bytes of one logical record, or
    /// a mark. A record is handed out when all of it, or `max` bytes, or half
    /// a window is there, or when it will never be finished.
    pub(super) fn next(&mut self, max: usize) -> Next {
        let available = self.bytes.len();
        let before_mark = self.marks.front().map(|mark| (mark.at - self.taken) as usize);
        let readable = before_mark.unwrap_or(available);
        if readable == 0 {
            return self.take_mark(|_| true).map_or(Next::Nothing, Next::Mark);
        }
        let pressed = before_mark.is_some() || self.held() >= WINDOW / 2;
        let stream = &self.bytes.make_contiguous()[..readable];
        let scan = Scan::over(&self.reader, stream, max, |_| ());
        if !(scan.complete || scan.data == max || (pressed && scan.data > 0)) {
            if before_mark.is_none() {
                return Next::Nothing;
            }
            // The beginning of a header whose rest will never come.
            self.drop_front(readable);
            return self.next(max);
        }
        let mut data = Vec::with_capacity(scan.data);
        let scan = Scan::over(&self.reader, stream, max, |piece| data.extend_from_slice(piece));
        let id = scan.tracker.id();
        self.reader = scan.tracker;
        self.drop_front(scan.length);
        Next::Data { bytes: data, complete: scan.complete, id }
    }

    fn drop_front(&mut self, length: usize) {
        self.bytes.drain(..length);
        self.taken += length as u64;
        self.due += length;
    }
}

/// How far one RECEIVE would go.
struct Scan {
    tracker: RecordTracker,
    /// Bytes of the stream.
    length: usize,
    /// Bytes of it that are the program's.
    data: usize,
    complete: bool,
}

impl Scan {
    fn over(
        tracker: &RecordTracker,
        stream: &[u8],
        max: usize,
        mut sink: impl FnMut(&[u8]),
    ) -> Self {
        let mut scan = Self { tracker: tracker.clone(), length: 0, data: 0, complete: false };
        while !scan.complete && scan.data < max && scan.length < stream.len() {
            let rest = &stream[scan.length..];
            let rest = &rest[..rest.len().min(max - scan.data)];
            // The bytes passed the same check when they were put in.
            let Ok(piece) = scan.tracker.step(rest) else { break };
            if piece.is_data {
                sink(&rest[..piece.length]);
                scan.data += piece.length;
            }
            scan.length += piece.length;
            scan.complete = piece.ends_record;
        }
        scan
    }
}
