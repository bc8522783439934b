//! A descriptor's input and a writer's output, joined to a conversation.

use std::io::{self, Write};
use std::os::fd::AsFd;

use conversation::ReturnCode;
use conversation::half_session::{Confirmation, State, Status};
use rustix::event::{PollFd, PollFlags, poll};

use crate::call::{Conversation, Incoming};
use crate::error::CallError;

/// Bytes read at once, all of which fit into one turn.
const PIECE: usize = crate::TURN / 2;

/// Why input and output could not be joined to a conversation to its end.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The conversation ended otherwise than in order.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Output cannot be written, or input not be waited for.
    #[error("cannot pass on what the program says: {0}")]
    Local(#[from] io::Error),
}

impl Conversation {
    /// Joins `input`, to its end, and `output` to a conversation just
    /// allocated. Returns when the program has ended in order and all it said
    /// has been written.
    ///
    /// This side gives up the right to send whenever it has nothing to say, and
    /// asks for it when it has, so programs that talk at any time can be talked
    /// to. The end of the input is told to the program, whose output still
    /// comes.
    ///
    /// # Errors
    /// [`JoinError`]; the conversation has ended, or ends when it is dropped.
    pub fn join(&mut self, input: impl AsFd, output: &mut impl Write) -> Result<(), JoinError> {
        let mut joint = Joint { piece: Vec::new(), input_ended: false, told: false, asked: false };
        loop {
            match self.state() {
                State::Send | State::SendPending => joint.speak(self)?,
                State::Confirm | State::ConfirmSend | State::ConfirmDeallocate => {
                    self.confirmed()?;
                }
                State::Reset => return Ok(()),
                State::Receive => match joint.listen(self, output) {
                    Ok(true) => {}
                    Ok(false) => joint.wait(self, &input)?,
                    Err(JoinError::Call(CallError::Code {
                        code: ReturnCode::DeallocatedNormal,
                        ..
                    })) => return Ok(()),
                    Err(error) => return Err(error),
                },
            }
        }
    }
}

struct Joint {
    /// Input that was read and is not sent.
    piece: Vec<u8>,
    input_ended: bool,
    /// The program was told that the input has ended.
    told: bool,
    /// The right to send was asked for, and has not come.
    asked: bool,
}

impl Joint {
    /// Says what there is to say and gives up the right to.
    fn speak(&mut self, conversation: &mut Conversation) -> Result<(), CallError> {
        self.asked = false;
        if !self.piece.is_empty() {
            conversation.send_data(&self.piece)?;
            self.piece.clear();
        }
        if self.input_ended && !self.told {
            conversation.end_of_input()?;
            self.told = true;
        }
        conversation.prepare_to_receive(Confirmation::Flush)
    }

    /// Takes what is there; false if there is nothing.
    fn listen(
        &mut self,
        conversation: &mut Conversation,
        output: &mut impl Write,
    ) -> Result<bool, JoinError> {
        let has_to_say = !self.piece.is_empty() || (self.input_ended && !self.told);
        if has_to_say && !self.asked {
            conversation.request_to_send()?;
            self.asked = true;
        }
        match conversation.receive_immediate()? {
            Some(Incoming::Data(data)) => {
                output.write_all(&data.bytes)?;
                output.flush()?;
                Ok(true)
            }
            Some(Incoming::Status(
                Status::Send | Status::Confirm | Status::ConfirmSend | Status::ConfirmDeallocate,
            )) => Ok(true),
            None => Ok(false),
        }
    }

    /// Waits for either side, and reads input.
    fn wait(&mut self, conversation: &Conversation, input: &impl AsFd) -> io::Result<()> {
        let reads = self.piece.is_empty() && !self.input_ended;
        let partner = PollFd::new(conversation, PollFlags::IN);
        let mut both = [partner, PollFd::new(input, PollFlags::IN)];
        let watched = if reads { &mut both[..] } else { &mut both[..1] };
        match poll(watched, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if !reads || both[1].revents().is_empty() {
            return Ok(());
        }
        self.piece.resize(PIECE, 0);
        let count = match rustix::io::read(input, &mut self.piece) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {
                self.piece.clear();
                return Ok(());
            }
            // No input is an empty one.
            Err(_) => 0,
        };
        self.piece.truncate(count);
        self.input_ended = count == 0;
        Ok(())
    }
}
