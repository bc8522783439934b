//! The files of the guest's user: joins the machine's device to whatever session
//! the host has passed.

use std::os::unix::net::UnixStream;

use file_manager::{Client, Request};
use io_processors::{FsEnd, FsRequest};

/// The way from the device to the file manager.
pub(super) struct UserFiles(Client);

impl UserFiles {
    /// Joins them; without a session yet.
    pub(super) fn of(device: &FsEnd) -> Result<Self, String> {
        let replies = device.clone();
        let on_reply = Box::new(move |number, reply| replies.reply(number, reply));
        let client = Client::start(on_reply).map_err(|error| {
            format!("no thread to be had: {error}; raise the limit of processes")
        })?;
        let requests = client.sender();
        device.serve(move |FsRequest { number, bytes, room }| {
            requests.send(Request { tag: number, room, bytes });
        });
        Ok(Self(client))
    }

    /// The guest's files are this session's from now on.
    pub(super) fn connect(&self, session: UnixStream) {
        if let Err(error) = self.0.connect(session) {
            tracing::error!(%error, "no thread for the guest's files");
        }
    }

    /// They are nobody's, and what the guest still wanted of them is forgotten.
    pub(super) fn disconnect(&self) {
        self.0.disconnect();
    }
}
