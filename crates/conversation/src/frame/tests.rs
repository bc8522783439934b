//! Records as bytes, and bytes that are none.

use super::*;
use proptest::prelude::*;

fn records() -> impl Strategy<Value = Record> {
    let unit = || proptest::collection::vec(any::<u8>(), 1..200);
    prop_oneof![
        unit().prop_map(Record::Attach),
        (unit(), proptest::sample::select(&Ends::ALL[..]))
            .prop_map(|(unit, (ends, _))| Record::Data { unit, ends }),
        (unit(), any::<bool>()).prop_map(|(unit, last)| Record::Error { unit, last }),
        unit().prop_map(Record::NegativeResponse),
        Just(Record::PositiveResponse),
        Just(Record::Signal),
        any::<u32>().prop_map(Record::Credit),
    ]
}

proptest! {
    #[test]
    fn records_survive_any_cuts(
        sent in proptest::collection::vec(records(), 0..10),
        cut in 1_usize..50,
    ) {
        let mut bytes = Vec::new();
        sent.iter().for_each(|record| record.encode(&mut bytes));
        let mut decoder = Decoder::default();
        let mut received = Vec::new();
        for mut piece in bytes.chunks(cut) {
            while let Some(record) = decoder.take(&mut piece).unwrap() {
                received.push(record);
            }
            prop_assert!(piece.is_empty());
        }
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn any_bytes_are_records_or_refused(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..100),
        honest in any::<bool>(),
    ) {
        if honest && bytes.len() > 3 {
            bytes[..3].copy_from_slice(&[0, 20, 1]);
        }
        let mut decoder = Decoder::default();
        let mut rest = bytes.as_slice();
        while let Ok(Some(_)) = decoder.take(&mut rest) {}
        prop_assert!(decoder.held() <= HEADER_LEN + MAX_UNIT);
    }
}

#[test]
fn a_request_of_another_protocol_is_refused_at_once() {
    let mut decoder = Decoder::default();
    let refused = decoder.take(&mut &b"GET"[..]).unwrap_err();
    assert_eq!(refused, FrameError::Length { length: 0x4745 });
    let refused = Decoder::default().take(&mut &[0, 9, 2][..]).unwrap_err();
    assert_eq!(refused, FrameError::Version { version: 2 });
}

#[test]
fn the_format_is_what_the_table_says() {
    let mut out = Vec::new();
    Record::Signal.encode(&mut out);
    Record::Data { unit: vec![0xaa], ends: Ends::TurnConfirm }.encode(&mut out);
    Record::Credit(0x0102).encode(&mut out);
    let expected = [
        &[0, 11, 1, 0x4b, 0x80, 0, 0xc9, 0, 1, 0, 1][..],
        &[0, 7, 1, 0x03, 0x20, 0x20, 0xaa],
        &[0, 10, 1, 0x83, 0x01, 0, 0, 0, 1, 2],
    ];
    assert_eq!(out, expected.concat());
}

#[test]
fn a_record_that_carries_nothing_and_ends_nothing_is_refused() {
    let mut decoder = Decoder::default();
    let refused = decoder.take(&mut &[0, 6, 1, 0x03, 0x90, 0][..]).unwrap_err();
    assert_eq!(refused, FrameError::Meaningless { header: [3, 0x90, 0], unit: 0 });
}
