//! Bytes of a stream that a guest's agent, or a user who is not known yet, writes: they
//! are taken apart alike however they come, what is held of them is bounded, and what
//! was read is written back as the same bytes.
#![no_main]

use agent_protocol::{HEADER_LEN, MAX_PAYLOAD};
use conversation::{Fmh7, frame, gds};
use libfuzzer_sys::fuzz_target;

/// Longest record of a conversation with its header.
const MAX_RECORD: usize = frame::HEADER_LEN + frame::MAX_UNIT;

fn agent(data: &[u8], piece: usize) -> Vec<String> {
    let mut decoder = agent_protocol::Decoder::new();
    let mut found = Vec::new();
    for mut input in data.chunks(piece) {
        loop {
            match decoder.next(&mut input) {
                Ok(Some((stream, message))) => {
                    let mut bytes = Vec::new();
                    if message.encode(stream, &mut bytes).is_ok() {
                        let again = agent_protocol::Decoder::new().next(&mut &bytes[..]);
                        assert_eq!(again, Ok(Some((stream, message.clone()))));
                    }
                    found.push(format!("{stream} {message:?}"));
                }
                Ok(None) => break,
                Err(error) => {
                    found.push(error.to_string());
                    return found;
                }
            }
        }
        assert!(input.is_empty() && decoder.held() <= HEADER_LEN + MAX_PAYLOAD);
    }
    found
}

fn records(data: &[u8], piece: usize) -> Vec<String> {
    let mut decoder = frame::Decoder::default();
    let mut found = Vec::new();
    for mut input in data.chunks(piece) {
        loop {
            match decoder.take(&mut input) {
                Ok(Some(record)) => {
                    let mut bytes = Vec::new();
                    record.encode(&mut bytes);
                    let again = frame::Decoder::default().take(&mut &bytes[..]);
                    assert_eq!(again, Ok(Some(record.clone())));
                    found.push(format!("{record:?}"));
                }
                Ok(None) => break,
                Err(error) => {
                    found.push(error.to_string());
                    return found;
                }
            }
        }
        assert!(decoder.held() <= MAX_RECORD);
    }
    found
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, data)) = data.split_first() else { return };
    let piece = usize::from(first) + 1;
    assert_eq!(agent(data, piece), agent(data, usize::MAX));
    assert_eq!(records(data, piece), records(data, usize::MAX));
    if let Ok(error) = Fmh7::decode(data) {
        assert_eq!(Fmh7::decode(&error.encode()), Ok(error));
    }
    if let Ok((id, variable, rest)) = gds::decode(data, 1 << 16) {
        assert!(variable.len() <= 1 << 16 && rest.len() < data.len());
        let again = gds::encode(id, &variable);
        let Ok((same, same_variable, [])) = gds::decode(&again, 1 << 16) else {
            panic!("what was read cannot be written")
        };
        assert_eq!((id, variable), (same, same_variable));
    }
});
