//! The control messages of a device with ports (5.3.6.2): who says what when.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::PORT_NAME;

/// The only port.
const PORT: u32 = 0;
/// Messages that may wait to be said. The driver is heard only while there is
/// room, so what it says cannot grow this.
const WAITING: usize = 8;
/// Messages that hearing one can add.
const ANSWERS: usize = 2;

/// `VIRTIO_CONSOLE_*` events.
pub(super) mod event {
    pub(in super::super) const DEVICE_READY: u16 = 0;
    pub(in super::super) const DEVICE_ADD: u16 = 1;
    pub(in super::super) const PORT_READY: u16 = 3;
    pub(in super::super) const PORT_OPEN: u16 = 6;
    pub(in super::super) const PORT_NAME: u16 = 7;
}

/// `struct virtio_console_control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) id: u32,
    pub(super) event: u16,
    pub(super) value: u16,
}

impl Message {
    /// Length of a message in bytes; a name follows without a length.
    pub(super) const BYTES: usize = 8;

    pub(super) fn from_bytes([i0, i1, i2, i3, e0, e1, v0, v1]: [u8; Self::BYTES]) -> Self {
        Self {
            id: u32::from_le_bytes([i0, i1, i2, i3]),
            event: u16::from_le_bytes([e0, e1]),
            value: u16::from_le_bytes([v0, v1]),
        }
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES + PORT_NAME.len());
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.event.to_le_bytes());
        bytes.extend(self.value.to_le_bytes());
        if self.event == event::PORT_NAME {
            bytes.extend(PORT_NAME.bytes());
        }
        bytes
    }
}

/// What a message of the driver means for the port.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing beyond the dialogue.
    Nothing,
    /// A program in the guest opened or closed the port.
    Port { open: bool },
}

/// What is still to be said to the driver.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Dialogue {
    waiting: VecDeque<Message>,
}

impl Dialogue {
    pub(super) fn is_silent(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() + ANSWERS <= WAITING
    }

    /// Takes the next message to the driver, as it goes over the queue.
    pub(super) fn next_said(&mut self) -> Option<Vec<u8>> {
        self.waiting.pop_front().map(Message::to_bytes)
    }

    /// Hears a message of the driver. `None`: it makes no sense.
    pub(super) fn hear(&mut self, message: Message) -> Option<Heard> {
        let Message { id, event, value } = message;
        match event {
            event::DEVICE_READY if value == 1 => {
                self.answer(event::DEVICE_ADD, 0);
                Some(Heard::Nothing)
            }
            event::PORT_READY if id == PORT && value == 1 => {
                self.answer(event::PORT_NAME, 1);
                // The host's end is always there.
                self.answer(event::PORT_OPEN, 1);
                Some(Heard::Nothing)
            }
            event::PORT_OPEN if id == PORT => Some(Heard::Port { open: value != 0 }),
            _ => None,
        }
    }

    fn answer(&mut self, event: u16, value: u16) {
        self.waiting.push_back(Message { id: PORT, event, value });
    }
}
