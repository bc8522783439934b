//! Where messages end in a stream of them.

/// Follows a stream of messages, each a kind, a length and a body. It holds no more
/// than a header.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// The header of the message in hand, as far as it was seen.
    header: Vec<u8>,
    /// Bytes of its body that are still to come.
    left: u64,
    /// What was seen is no stream of messages: there are no ends to be found.
    lost: bool,
}

const HEADER: usize = 5;

impl Frames {
    /// These bytes have passed.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.lost {
            let in_body = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (_, rest) = bytes.split_at(in_body);
            self.left -= in_body as u64;
            bytes = rest;
            if self.left > 0 || bytes.is_empty() {
                continue;
            }
            let (head, rest) = bytes.split_at((HEADER - self.header.len()).min(bytes.len()));
            self.header.extend_from_slice(head);
            bytes = rest;
            if let [_, length @ ..] = self.header.as_slice() {
                if let Ok(length) = <[u8; 4]>::try_from(length) {
                    self.begin(u32::from_be_bytes(length));
                }
            }
        }
    }

    /// A message has begun whose length this is; it counts itself.
    fn begin(&mut self, length: u32) {
        self.header.clear();
        match length.checked_sub(4) {
            Some(body) => self.left = body.into(),
            None => self.lost = true,
        }
    }

    /// Whether something may be said now, between two messages.
    pub(crate) fn between(&self) -> bool {
        !self.lost && self.left == 0 && self.header.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::answer::message_of;
    use super::*;

    #[test]
    fn a_stream_out_of_form_has_no_ends() {
        let mut frames = Frames::default();
        frames.pass(&[b'Z', 0, 0, 0, 3]);
        assert!(!frames.between());
        frames.pass(&message_of(b'Z', b"I"));
        assert!(!frames.between());
    }

    proptest! {
        #[test]
        fn ends_are_found_however_bytes_come(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 1_usize..50,
        ) {
            let mut frames = Frames::default();
            let stream: Vec<u8> = bodies.iter().flat_map(|body| message_of(b'D', body)).collect();
            let mut ends = vec![0];
            ends.extend(bodies.iter().scan(0, |at, body| { *at += body.len() + 5; Some(*at) }));
            let mut at = 0;
            for piece in stream.chunks(cut) {
                frames.pass(piece);
                at += piece.len();
                prop_assert_eq!(frames.between(), ends.contains(&at));
            }
        }

        #[test]
        fn garbage_is_followed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::default();
            frames.pass(&bytes);
            prop_assert!(frames.header.len() < HEADER);
        }
    }
}
