//! Saving an I/O processor and putting its state back.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use virtio_queue::{Queue, QueueT};

use super::control::{Message, Shared};
use super::{IoState, SaveIoError};

/// How far a queue is; where it is say the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueueState {
    next_avail: u16,
    next_used: u16,
}

impl QueueState {
    pub(super) fn of(queue: &Queue) -> Self {
        Self { next_avail: queue.next_avail(), next_used: queue.next_used() }
    }

    pub(super) fn put_into(self, queue: &mut Queue) {
        queue.set_next_avail(self.next_avail);
        queue.set_next_used(self.next_used);
    }
}

/// What the thread knows, on its way out of it.
pub(super) type Saved = Result<(Vec<Option<QueueState>>, Value), String>;

/// What the thread is to know from now on.
#[derive(Debug)]
pub(super) struct Restore {
    pub(super) state: IoState,
    pub(super) answer: SyncSender<Result<(), String>>,
}

impl Shared {
    pub(super) fn save(&self) -> Result<IoState, SaveIoError> {
        let (answer, answered) = sync_channel(1);
        self.tell(Message::Save(answer))?;
        let (queues, device) = self.hear(&answered)?;
        let (registers, pending, active) = self.facts();
        let (name, interrupt) = (self.name().to_owned(), self.interrupt().status());
        Ok(IoState { name, registers, interrupt, pending, active, queues, device })
    }

    pub(super) fn restore(&self, state: &IoState) -> Result<(), SaveIoError> {
        if state.name != self.name() || !self.fits(&state.registers) {
            return Err(self.wrong("it is another device's".to_owned()));
        }
        let (answer, answered) = sync_channel(1);
        self.tell(Message::Restore(Box::new(Restore { state: state.clone(), answer })))?;
        self.hear(&answered)?;
        self.set_facts(&state.registers, state.pending, state.active);
        self.interrupt().set(state.interrupt);
        Ok(())
    }

    fn tell(&self, message: Message) -> Result<(), SaveIoError> {
        let processor = self.name().to_owned();
        match self.send_idle(message) {
            Some(true) => Ok(()),
            Some(false) => Err(SaveIoError::NotIdle { processor }),
            None => Err(SaveIoError::Ended { processor }),
        }
    }

    fn hear<T>(&self, answered: &Receiver<Result<T, String>>) -> Result<T, SaveIoError> {
        let ended = SaveIoError::Ended { processor: self.name().to_owned() };
        answered.recv().map_err(|_| ended)?.map_err(|reason| self.wrong(reason))
    }

    fn wrong(&self, reason: String) -> SaveIoError {
        SaveIoError::State { processor: self.name().to_owned(), reason }
    }
}
