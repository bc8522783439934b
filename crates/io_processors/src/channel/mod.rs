//! The channel for the guest agent: a console device (5.3) with one named port
//! (`VIRTIO_CONSOLE_F_MULTIPORT`) that carries a byte stream each way.

mod control;
mod end;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::console::{DEVICE_ID, read_all};
use crate::device::{VirtioDevice, Waker};
use crate::ring::{QueueFault, Ring};
use control::{Dialogue, Message};
pub use end::{ChannelEnd, ChannelState};
use end::{PIECE, Pipe};

/// The port's name in the guest: `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "berth.agent";

/// `VIRTIO_CONSOLE_F_MULTIPORT` (5.3.3).
const F_MULTIPORT: u64 = 1 << 1;
/// Bytes one buffer from the guest may have. Linux sends at most 32 KiB.
const MOST: u64 = 1 << 20;

/// The queues (5.3.2).
pub(crate) mod queue {
    /// Port 0, host to guest.
    pub(crate) const RECEIVE: usize = 0;
    /// Port 0, guest to host.
    pub(crate) const TRANSMIT: usize = 1;
    /// Control messages, host to guest.
    pub(crate) const CONTROL_RECEIVE: usize = 2;
    /// Control messages, guest to host.
    pub(crate) const CONTROL_TRANSMIT: usize = 3;
}
const QUEUE_SIZES: [u16; 4] = [128, 128, 32, 32];

#[derive(Serialize, Deserialize)]
struct Saved<D> {
    dialogue: D,
    open: bool,
}

/// The agent channel's device.
pub struct AgentChannel {
    pipe: Pipe,
    dialogue: Dialogue,
    waker: Option<Waker>,
    scratch: Vec<u8>,
}

impl AgentChannel {
    /// An agent channel and the host's end of it.
    #[must_use]
    pub fn new() -> (Self, ChannelEnd) {
        let pipe = Pipe::default();
        let end = pipe.end();
        let channel =
            Self { pipe, dialogue: Dialogue::default(), waker: None, scratch: Vec::new() };
        (channel, end)
    }

    fn wake(&self, index: usize) {
        if let Some(waker) = &self.waker {
            waker.wake(index);
        }
    }

    fn receive(&self, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        while self.pipe.has_bytes_for_guest() {
            let Some(chain) = ring.take()? else { break };
            let room = chain.writable_bytes().min(PIECE) as usize;
            if room == 0 {
                ring.count_guest_error();
            }
            let written = chain.write(ring.access(), &self.pipe.take_for_guest(room));
            ring.complete(&chain, written)?;
        }
        Ok(())
    }

    fn transmit(&mut self, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        // A full pipe leaves the guest's buffers in its queue: that is what
        // makes the guest wait.
        while self.pipe.has_room_for_host() {
            let Some(chain) = ring.take()? else { break };
            read_all(&chain, ring, MOST, &mut self.scratch)?;
            self.pipe.put_for_host(&self.scratch);
            ring.complete(&chain, 0)?;
        }
        Ok(())
    }

    fn say(&mut self, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        while !self.dialogue.is_silent() {
            let Some(chain) = ring.take()? else { break };
            let written =
                self.dialogue.next_said().map_or(0, |bytes| chain.write(ring.access(), &bytes));
            ring.complete(&chain, written)?;
        }
        // There may be room for answers again.
        self.wake_if(self.dialogue.has_room(), queue::CONTROL_TRANSMIT);
        Ok(())
    }

    fn hear(&mut self, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        let mut heard = false;
        while self.dialogue.has_room() {
            let Some(chain) = ring.take()? else { break };
            heard = true;
            let mut bytes = [0; Message::BYTES];
            let message = (chain.read(ring.access(), &mut bytes) == Message::BYTES)
                .then(|| Message::from_bytes(bytes));
            match message.and_then(|message| self.dialogue.hear(message)) {
                Some(control::Heard::Nothing) => {}
                Some(control::Heard::Port { open }) => {
                    self.pipe.set_open(open);
                    self.wake(queue::RECEIVE);
                }
                None => ring.count_guest_error(),
            }
            ring.complete(&chain, 0)?;
        }
        self.wake_if(heard && !self.dialogue.is_silent(), queue::CONTROL_RECEIVE);
        Ok(())
    }

    fn wake_if(&self, condition: bool, index: usize) {
        if condition {
            self.wake(index);
        }
    }
}

impl VirtioDevice for AgentChannel {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        F_MULTIPORT
    }

    /// `struct virtio_console_config` (5.3.4): columns, rows, ports, and a
    /// register for emergencies that is not offered.
    fn config_space(&self) -> Vec<u8> {
        let mut config = vec![0; 12];
        config[4..8].copy_from_slice(&1u32.to_le_bytes());
        config
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn attach(&mut self, waker: Waker) {
        self.pipe.attach(waker.clone());
        self.waker = Some(waker);
    }

    fn process(&mut self, index: usize, ring: &mut Ring<'_>) -> Result<(), QueueFault> {
        match index {
            queue::RECEIVE => self.receive(ring),
            queue::TRANSMIT => self.transmit(ring),
            queue::CONTROL_RECEIVE => self.say(ring),
            _ => self.hear(ring),
        }
    }

    fn reset(&mut self) {
        self.dialogue = Dialogue::default();
        self.pipe.set_open(false);
    }

    fn save(&self) -> Result<Value, String> {
        let open = self.pipe.at_rest().ok_or("bytes of the guest's agent are on their way")?;
        serde_json::to_value(Saved { dialogue: &self.dialogue, open }).map_err(|e| e.to_string())
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        let Saved { dialogue, open } =
            Saved::<Dialogue>::deserialize(state).map_err(|error| error.to_string())?;
        self.dialogue = dialogue;
        if open {
            self.pipe.resume();
        }
        Ok(())
    }
}

impl Drop for AgentChannel {
    fn drop(&mut self) {
        self.pipe.close();
    }
}
