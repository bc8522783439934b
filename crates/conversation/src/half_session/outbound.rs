//! What the program has sent and the transport has not yet taken.

use std::collections::VecDeque;

use super::{MARK_COST, ProtocolError, SEND_BUFFER, WINDOW};
use crate::fmh7::Fmh7;
use crate::frame::{Ends, MAX_UNIT, Record};

#[derive(Debug, Clone)]
enum Item {
    Attach(Vec<u8>),
    /// So many bytes of `data`.
    Data(usize),
    Error(Vec<u8>),
    NegativeResponse(Vec<u8>),
    PositiveResponse,
    End(Ends),
    /// An error that ends the conversation.
    Last(Vec<u8>),
}

/// The queue, and the sending half of the flow control. Records are made when
/// the transport has taken most of those made before and the partner has
/// granted the bytes.
#[derive(Debug, Clone)]
pub(super) struct Outbound {
    items: VecDeque<Item>,
    /// The bytes of all data items.
    data: VecDeque<u8>,
    /// Bytes of error items.
    errors: usize,
    /// Bytes made and not taken: `wire[drained..]`.
    wire: Vec<u8>,
    drained: usize,
    /// Bytes that may be sent.
    credit: usize,
    /// The queue is to be sent, not to be collected further.
    flushing: bool,
    grant: u32,
    signal: bool,
    /// The partner knows of the conversation.
    opened: bool,
}

impl Outbound {
    pub(super) fn new() -> Self {
        Self {
            items: VecDeque::new(),
            data: VecDeque::new(),
            errors: 0,
            wire: Vec::new(),
            drained: 0,
            credit: WINDOW,
            flushing: false,
            grant: 0,
            signal: false,
            opened: false,
        }
    }

    /// Bytes for the transport.
    pub(super) fn wire(&self) -> &[u8] {
        &self.wire[self.drained..]
    }

    /// The transport has taken `length` bytes.
    pub(super) fn drain(&mut self, length: usize) {
        self.drained = self.wire.len().min(self.drained.saturating_add(length));
        if self.drained == self.wire.len() {
            self.wire.clear();
            self.drained = 0;
        } else if self.drained >= MAX_UNIT {
            self.wire.drain(..self.drained);
            self.drained = 0;
        }
    }

    /// Bytes in the queue and on their way to the transport.
    pub(super) fn held(&self) -> usize {
        self.queued() + self.wire.len()
    }

    fn queued(&self) -> usize {
        self.data.len() + self.errors
    }

    /// Bytes that the send buffer has room for.
    pub(super) fn room(&self) -> usize {
        SEND_BUFFER.saturating_sub(self.queued())
    }

    /// True if every record has been made.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// True if the partner knows of the conversation.
    pub(super) fn is_opened(&self) -> bool {
        self.opened
    }

    /// The partner opened the conversation.
    pub(super) fn open(&mut self) {
        self.opened = true;
    }

    pub(super) fn attach(&mut self, unit: Vec<u8>) {
        self.items.push_back(Item::Attach(unit));
    }

    pub(super) fn data(&mut self, bytes: &[u8]) {
        self.data.extend(bytes);
        match self.items.back_mut() {
            Some(Item::Data(length)) => *length += bytes.len(),
            _ if bytes.is_empty() => {}
            _ => self.items.push_back(Item::Data(bytes.len())),
        }
        if self.data.len() >= MAX_UNIT {
            self.flushing = true;
        }
    }

    pub(super) fn error(&mut self, error: &Fmh7) {
        let unit = error.encode();
        self.errors += unit.len() + MARK_COST;
        self.send(Item::Error(unit));
    }

    pub(super) fn negative_response(&mut self, error: &Fmh7) {
        let unit = error.encode();
        self.errors += unit.len() + MARK_COST;
        self.send(Item::NegativeResponse(unit));
    }

    pub(super) fn positive_response(&mut self) {
        self.send(Item::PositiveResponse);
    }

    pub(super) fn end(&mut self, ends: Ends) {
        self.send(Item::End(ends));
    }

    pub(super) fn signal(&mut self) {
        self.signal = true;
    }

    /// True if a grant would become a record at once. A partner that reads
    /// nothing gets no more credit than it has.
    pub(super) fn takes_grant(&self) -> bool {
        self.opened && self.wire().len() < MAX_UNIT
    }

    pub(super) fn grant(&mut self, bytes: u32) {
        self.grant = self.grant.saturating_add(bytes);
    }

    pub(super) fn flush(&mut self) {
        self.flushing = true;
    }

    fn send(&mut self, item: Item) {
        self.items.push_back(item);
        self.flushing = true;
    }

    /// The partner takes more.
    pub(super) fn credit(&mut self, bytes: u32) -> Result<(), ProtocolError> {
        let credit = self.credit.saturating_add(bytes as usize);
        if credit > WINDOW {
            return Err(ProtocolError::CreditExceeded);
        }
        self.credit = credit;
        Ok(())
    }

    /// The partner wants no more data: what says that the turn changes, or the
    /// conversation ends, remains.
    pub(super) fn drop_data(&mut self) {
        self.data.clear();
        self.errors = 0;
        self.items.retain(|item| {
            !matches!(item, Item::Data(_) | Item::Error(_) | Item::NegativeResponse(_))
        });
    }

    /// The conversation ends with `error`, which goes out whatever the credit.
    pub(super) fn abort(&mut self, error: &Fmh7) {
        self.clear_queue();
        if self.opened {
            self.send(Item::Last(error.encode()));
        }
    }

    /// The partner is gone: nothing is sent any more.
    pub(super) fn clear(&mut self) {
        self.clear_queue();
        self.wire.clear();
        self.drained = 0;
    }

    fn clear_queue(&mut self) {
        self.drop_data();
        self.items.clear();
        self.grant = 0;
        self.signal = false;
    }

    /// Makes records as far as transport and partner allow.
    pub(super) fn pump(&mut self) {
        while self.wire().len() < MAX_UNIT {
            if self.opened && self.grant > 0 {
                Record::Credit(std::mem::take(&mut self.grant)).encode(&mut self.wire);
            } else if self.opened && std::mem::take(&mut self.signal) {
                Record::Signal.encode(&mut self.wire);
            } else if !self.flushing || !self.pump_item() {
                break;
            }
        }
        if self.items.is_empty() {
            self.flushing = false;
        }
    }

    /// Makes a record of the first item, or of its beginning; false if there is
    /// none, or no credit for it.
    fn pump_item(&mut self) -> bool {
        if let Some(Item::Data(length)) = self.items.front() {
            let length = *length;
            return self.pump_data(length);
        }
        if let Some(Item::Error(unit) | Item::NegativeResponse(unit)) = self.items.front() {
            let cost = unit.len() + MARK_COST;
            let Some(credit) = self.credit.checked_sub(cost) else { return false };
            self.credit = credit;
            self.errors -= cost;
        }
        let record = match self.items.pop_front() {
            None | Some(Item::Data(_)) => return false,
            Some(Item::Attach(unit)) => Record::Attach(unit),
            Some(Item::Error(unit)) => Record::Error { unit, last: false },
            Some(Item::NegativeResponse(unit)) => Record::NegativeResponse(unit),
            Some(Item::PositiveResponse) => Record::PositiveResponse,
            Some(Item::End(ends)) => Record::Data { unit: Vec::new(), ends },
            Some(Item::Last(unit)) => Record::Error { unit, last: true },
        };
        self.opened = true;
        record.encode(&mut self.wire);
        true
    }

    /// Makes a data record of the first of `length` bytes; if it takes all of
    /// them, what ends them goes along.
    fn pump_data(&mut self, length: usize) -> bool {
        let now = length.min(self.credit).min(MAX_UNIT);
        if now == 0 {
            return false;
        }
        self.credit -= now;
        let unit: Vec<u8> = self.data.drain(..now).collect();
        let mut ends = Ends::Nothing;
        if now < length {
            self.items[0] = Item::Data(length - now);
        } else {
            self.items.pop_front();
            if let Some(Item::End(found)) = self.items.front() {
                ends = *found;
                self.items.pop_front();
            }
        }
        Record::Data { unit, ends }.encode(&mut self.wire);
        true
    }
}
