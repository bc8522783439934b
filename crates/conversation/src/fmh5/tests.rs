//! The Attach against bytes of real systems, and against nonsense.

use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// IBM's worked example: program TP1, user PROG1, password SAMPLPW, PIP TEST.
#[test]
fn the_vector_of_vtam_byte_for_byte() {
    let vector = bytes(
        "200502FF 0803D000 4003E3D7 F1100801 E2C1D4D7 D3D7E606 02D7D9D6 C7F10000
         000C12F5 000812E2 E3C5E2E3",
    );
    let attach = Attach {
        conversation_type: ConversationType::Basic,
        security: Security::Pgm {
            user: "PROG1".into(),
            password: Password::Clear("SAMPLPW".into()),
            profile: None,
        },
        pip: Some(vec![bytes("E3C5E2E3")]),
        ..Attach::new(TpName::new("TP1"))
    };
    assert_eq!(Attach::decode(&vector), Ok(attach.clone()));
    assert_eq!(attach.encode().unwrap(), vector);
}

/// A trace of SNA Server: service program X'30' "005", a password substitute,
/// a unit of work, a conversation group.
#[test]
fn the_vector_of_sna_server_byte_for_byte() {
    let start = "43 05 02FF 18 03 D0 00 40 04 30F0F0F5 0F";
    let user = "04 02 C1D4C9";
    let password = "09 01 7B3009E5398381E7";
    let end = "1A 11 C2C9D6D5C5E3C6D9 4B E2D5C1C4E5F0F2F1 24280E0D1E05 0001
               00 08 00000000000002FF 000A 12F5 0006 12E2 C1C2";
    let attach = Attach {
        conversation_type: ConversationType::Basic,
        tpn: TpName { service: Some(0x30), name: "005".into() },
        security: Security::Pgm {
            user: "AMI".into(),
            password: Password::Substitute(bytes("7B3009E5398381E7")),
            profile: None,
        },
        luwid: Some(Luwid {
            lu_name: "BIONETFR.SNADV021".into(),
            instance: [0x24, 0x28, 0x0e, 0x0d, 0x1e, 0x05],
            sequence: 1,
        }),
        group: bytes("00000000000002FF"),
        pip: Some(vec![bytes("C1C2")]),
        ..Attach::new(TpName::new(""))
    };
    let vector = bytes(&[start, user, password, end].concat());
    assert_eq!(Attach::decode(&vector), Ok(attach.clone()));
    // Written back, but for the order of subfields, which is free.
    assert_eq!(attach.encode().unwrap(), bytes(&[start, password, user, end].concat()));
}

#[test]
fn each_fault_is_answered_with_its_sense_code() {
    let good = bytes("200502FF 0003D000 4003E3D7 F1100801 E2C1D4D7 D3D7E606 02D7D9D6 C7F10000");
    assert!(Attach::decode(&good).is_ok());
    let with = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        Attach::decode(&bad).unwrap_err().sense()
    };
    assert_eq!(with(0, 0x21), Sense::UNRECOGNIZED_HEADER);
    assert_eq!(with(1, 0x07), Sense::UNRECOGNIZED_HEADER);
    assert_eq!(with(3, 0xfe), Sense::UNRECOGNIZED_HEADER);
    assert_eq!(with(5, 4), Sense::UNRECOGNIZED_HEADER);
    assert_eq!(with(4, 0x80), Sense::SECURITY_NOT_VALID);
    assert_eq!(with(4, 0x20), Sense::SECURITY_NOT_VALID);
    assert_eq!(with(4, 0x08), Sense::PIP_NOT_SPECIFIED_CORRECTLY);
    assert_eq!(with(6, 0xd2), Sense::CONVERSATION_TYPE_MISMATCH);
    assert_eq!(with(8, 0x80), Sense::SYNC_LEVEL_NOT_SUPPORTED);
    assert_eq!(with(9, 0), Sense::TPN_NOT_RECOGNIZED);
    assert_eq!(with(9, 65), Sense::TPN_NOT_RECOGNIZED);
    assert_eq!(with(11, 0xff), Sense::TPN_NOT_RECOGNIZED);
    assert_eq!(with(15, 2), Sense::SECURITY_NOT_VALID);
    assert_eq!(with(15, 3), Sense::SECURITY_NOT_VALID);
    assert_eq!(with(30, 1), Sense::UNRECOGNIZED_HEADER);
    let mut unannounced = good.clone();
    unannounced.extend(bytes("000412F5"));
    let refused = Attach::decode(&unannounced).unwrap_err();
    assert_eq!(refused.sense(), Sense::PIP_NOT_SPECIFIED_CORRECTLY);
}

#[test]
fn trailing_fields_may_be_unknown_or_absent() {
    let short = bytes("0D 0502FF 00 03 D1 00 00 03 E3D7F1");
    let attach = Attach::decode(&short).unwrap();
    assert_eq!(attach, Attach { sync_level: SyncLevel::None, ..Attach::new(TpName::new("TP1")) });
    let long = bytes("14 0502FF 00 03 D1 00 00 03 E3D7F1 00 00 00 00 FFFFFF");
    assert_eq!(Attach::decode(&long), Ok(attach));
}

#[test]
fn what_does_not_fit_is_not_encoded() {
    let encode = |attach: Attach| attach.encode().unwrap_err();
    let base = || Attach::new(TpName::new("tp"));
    let length = |error, expected| match error {
        EncodeError::Length { field, .. } => assert_eq!(field, expected),
        other => panic!("{other}"),
    };
    length(encode(Attach { tpn: TpName::new(""), ..base() }), Field::Tpn);
    length(encode(Attach { tpn: TpName::new("x".repeat(65)), ..base() }), Field::Tpn);
    length(encode(Attach { correlator: vec![0; 9], ..base() }), Field::Correlator);
    length(encode(Attach { pip: Some(vec![vec![0; MAX_PIP]]), ..base() }), Field::Pip);
    let security = Security::Same { user: "u".repeat(240), profile: None };
    length(encode(Attach { security, ..base() }), Field::Header);
    let tpn = TpName { service: Some(0x40), name: "a".into() };
    assert_eq!(encode(Attach { tpn, ..base() }), EncodeError::Prefix(0x40));
    let security = Security::Same { user: "ü".into(), profile: None };
    assert!(matches!(
        encode(Attach { security, ..base() }),
        EncodeError::Characters { field: Field::User, .. }
    ));
}

#[test]
fn passwords_are_not_printed() {
    let password = Password::Clear("SECRET".into());
    assert!(!format!("{password:?}").contains("SECRET"));
}

fn security() -> impl Strategy<Value = Security> {
    let name = "[A-Za-z0-9._-]{1,20}";
    let profile = || proptest::option::of("[A-Z]{1,8}");
    prop_oneof![
        Just(Security::None),
        (name, profile()).prop_map(|(user, profile)| Security::Same { user, profile }),
        (name, "[!-~&&[^!\\[\\]^`{|}~\\\\]]{1,40}", profile()).prop_map(|(user, pw, profile)| {
            Security::Pgm { user, password: Password::Clear(pw), profile }
        }),
        (name, proptest::collection::vec(any::<u8>(), 1..20), profile()).prop_map(
            |(user, pw, profile)| Security::Pgm {
                user,
                password: Password::Substitute(pw),
                profile
            }
        ),
    ]
}

fn attach() -> impl Strategy<Value = Attach> {
    (
        (proptest::option::of(0_u8..0x40), "[A-Za-z0-9/._-]{1,63}"),
        any::<[bool; 2]>(),
        security(),
        proptest::option::of(("[A-Z]{1,8}\\.[A-Z]{1,8}", any::<[u8; 6]>(), any::<u16>())),
        proptest::collection::vec(any::<u8>(), 0..=8),
        proptest::collection::vec(any::<u8>(), 0..=8),
        proptest::option::of(proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..100),
            0..5,
        )),
    )
        .prop_map(
            |((service, name), [basic, confirm], security, luwid, correlator, group, pip)| Attach {
                tpn: TpName { service, name },
                conversation_type: if basic {
                    ConversationType::Basic
                } else {
                    ConversationType::Mapped
                },
                sync_level: if confirm { SyncLevel::Confirm } else { SyncLevel::None },
                security,
                luwid: luwid.map(|(lu_name, instance, sequence)| Luwid {
                    lu_name,
                    instance,
                    sequence,
                }),
                correlator,
                group,
                pip,
            },
        )
}

proptest! {
    #[test]
    fn an_attach_is_read_as_it_was_written(attach in attach()) {
        prop_assert_eq!(Attach::decode(&attach.encode().unwrap()), Ok(attach));
    }

    #[test]
    fn a_damaged_attach_is_refused_or_another_attach(
        attach in attach(),
        damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        cut in any::<usize>(),
    ) {
        let mut bytes = attach.encode().unwrap();
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(cut % (bytes.len() + 1));
        if let Ok(read) = Attach::decode(&bytes) {
            prop_assert_eq!(Attach::decode(&read.encode().unwrap()), Ok(read));
        }
    }

    #[test]
    fn any_bytes_are_refused_or_an_attach(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = Attach::decode(&bytes);
    }
}
