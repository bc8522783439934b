use super::*;

/// A small generator of numbers that repeat from run to run (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, longest: usize) -> Vec<u8> {
        (0..self.below(longest + 1)).map(|_| self.next() as u8).collect()
    }

    fn string(&mut self) -> Vec<u8> {
        (0..=self.below(12)).map(|_| b'a' + self.below(26) as u8).collect()
    }

    fn renewal(&mut self) -> Renewal {
        Renewal {
            entropy: (0..32 + self.below(225)).map(|_| self.next() as u8).collect(),
            wall_clock_ns: self.next(),
            hostname: "serve-03".to_owned(),
            machine_id: [self.next() as u8; 16],
            boot_id: [self.next() as u8; 16],
            generation: self.next(),
        }
    }

    fn message(&mut self) -> (StreamId, Message) {
        let message = match self.below(24) {
            0 => Message::Exec(ExecRequest {
                argv: (0..=self.below(5)).map(|_| self.string()).collect(),
                env: (0..self.below(3)).map(|_| (self.string(), self.string())).collect(),
                cwd: if self.below(2) == 0 { Vec::new() } else { self.string() },
            }),
            1 => Message::Stdin(self.bytes(300)),
            2 => Message::StdinEnd,
            3 => Message::Signal(1 + self.below(64) as u8),
            4 => Message::Close,
            5 => Message::Credit(self.next() as u32),
            6 => Message::Ping(self.next()),
            7 => Message::Shutdown,
            8 => Message::Ready(Ready {
                version: self.next() as u32,
                uptime_ns: self.next(),
                kernel: "6.12-ö".to_owned(),
            }),
            9 => Message::Stdout(self.bytes(MAX_PAYLOAD)),
            10 => Message::Stderr(self.bytes(300)),
            11 => Message::Exited(Status::Code(self.next() as u8)),
            12 => Message::Exited(Status::Signal(self.next() as u8)),
            13 => Message::Failed("python3: not found in the guest".to_owned()),
            14 => Message::StartService(ServiceRequest {
                tpn: Tpn::new("MAIL").unwrap(),
                program: ExecRequest::new(["mail", "-x"]),
            }),
            15 => Message::Converse(Conversation {
                tpn: Tpn::new("back-up.2").unwrap(),
                program: (self.below(2) == 0).then(|| ExecRequest::new(["cat"])),
            }),
            16 => Message::Renew(self.renewal()),
            17 => Message::MetadataReply {
                id: self.next() as u32,
                status: 100 + self.below(500) as u16,
                body: self.bytes(MAX_METADATA_BODY),
            },
            18 => Message::ServiceReady,
            19 => Message::Accepted,
            20 => Message::Renewed,
            21 => Message::RenewFailed("no clock".to_owned()),
            22 => Message::Connect,
            _ => Message::MetadataRequest {
                id: self.next() as u32,
                path: "/v1/token?audience=a%20b".to_owned(),
            },
        };
        let connection = matches!(
            message,
            Message::Ping(_)
                | Message::Shutdown
                | Message::Ready(_)
                | Message::Renew(_)
                | Message::Renewed
                | Message::RenewFailed(_)
                | Message::MetadataRequest { .. }
                | Message::MetadataReply { .. }
        );
        let first = if message == Message::Connect { FIRST_GUEST_STREAM } else { 1 };
        (if connection { 0 } else { first + self.below(1000) as u32 }, message)
    }
}

fn frame(length: u32, stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&stream.to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(payload);
    bytes
}

fn decode_one(bytes: &[u8]) -> Result<Option<(StreamId, Message)>, ProtocolError> {
    Decoder::new().next(&mut &bytes[..])
}

#[test]
fn messages_survive_any_split_of_the_byte_stream() {
    let mut random = Random(42);
    for _ in 0..200 {
        let said: Vec<_> = (0..8).map(|_| random.message()).collect();
        let mut bytes = Vec::new();
        for (stream, message) in &said {
            message.encode(*stream, &mut bytes).unwrap();
        }
        let longest_piece = [1 + random.below(9), 20_000][random.below(2)];
        let mut decoder = Decoder::new();
        let mut heard = Vec::new();
        let mut left = &bytes[..];
        while !left.is_empty() {
            let (mut piece, rest) =
                left.split_at((1 + random.below(longest_piece)).min(left.len()));
            left = rest;
            while let Some(message) = decoder.next(&mut piece).unwrap() {
                heard.push(message);
            }
            assert!(piece.is_empty());
        }
        assert_eq!(said, heard);
        assert_eq!(decoder.held(), 0);
    }
}

#[test]
fn garbage_is_refused_or_held_within_one_frame() {
    let mut random = Random(7);
    let mut refused = 0;
    for round in 0..2000 {
        // Half of the rounds damage a good stream, the others are all noise.
        let mut bytes = random.bytes(4000);
        if round % 2 == 0 {
            bytes.clear();
            for _ in 0..4 {
                let (stream, message) = random.message();
                message.encode(stream, &mut bytes).unwrap();
            }
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        let mut decoder = Decoder::new();
        for mut piece in bytes.chunks(1 + random.below(5000)) {
            let result = loop {
                match decoder.next(&mut piece) {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            assert!(decoder.held() < HEADER_LEN + MAX_PAYLOAD);
            if result.is_err() {
                refused += 1;
                break;
            }
        }
    }
    assert!(refused > 900, "only {refused} of 2000 damaged streams were refused");
}

#[test]
fn a_length_above_the_bound_is_refused_by_the_header_alone() {
    let length = MAX_PAYLOAD as u32 + 1;
    let mut decoder = Decoder::new();
    let bytes = frame(length, 1, 0x81, &[]);
    assert_eq!(decoder.next(&mut &bytes[..]), Err(ProtocolError::TooLong { length }));
    assert_eq!(decoder.held(), 0);
}

#[test]
fn after_an_error_nothing_more_is_understood() {
    let mut decoder = Decoder::new();
    let error = Err(ProtocolError::UnknownKind { kind: 0x33 });
    assert_eq!(decoder.next(&mut &frame(0, 1, 0x33, &[])[..]), error);
    let mut good = Vec::new();
    Message::StdinEnd.encode(1, &mut good).unwrap();
    assert_eq!(decoder.next(&mut &good[..]), error);
}

#[test]
fn every_kind_of_malformed_payload_is_refused() {
    let cases: [(u32, u8, &[u8]); 20] = [
        (1, 0x01, &[0, 0, 0, 0]),                           // Exec without a program
        (1, 0x01, &[1, 0, 0, 0, 255, 0, 0, 0, b'a']),       // its string past the end
        (1, 0x01, &[1, 0, 0, 0, 1, 0, 0, 0, 0]),            // a zero byte in it
        (1, 0x01, &[255, 255, 255, 255, 1, 0, 0, 0, b'a']), // more strings than bytes
        (1, 0x03, &[1]),                                    // StdinEnd with a payload
        (1, 0x04, &[0]),                                    // signal 0
        (1, 0x04, &[65]),                                   // signal 65
        (1, 0x40, &[1, 2, 3]),                              // a short Credit
        (0, 0x06, &[0; 9]),                                 // a long Ping
        (0, 0x80, &[0; 11]),                                // a short Ready
        (1, 0x83, &[2, 0]),                                 // Exited in a third way
        (1, 0x84, &[0xff]),                                 // Failed, not UTF-8
        (1, 0x08, &[2, 0, 0, 0, b'.', b'.']),               // StartService of `..`
        (1, 0x08, &[1, 0, 0, 0, b'A', 0, 0, 0, 0]),         // without a program
        (1, 0x09, &[1, 0, 0, 0, b'A', 2]),                  // Converse in a third way
        (1, 0x86, &[0]),                                    // ServiceReady with a payload
        (0, 0x0a, &[0; 60]),                                // Renew without entropy
        (0, 0x0b, &[1, 0, 0, 0, 99, 0]),                    // MetadataReply, status 99
        (0, 0x8a, &[1, 0, 0, 0, b'v']),                     // MetadataRequest, no slash
        (0, 0x8a, &[1, 0, 0, 0, b'/', b'\n']),              // with a line's end
    ];
    for (stream, kind, payload) in cases {
        let result = decode_one(&frame(payload.len() as u32, stream, kind, payload));
        assert!(
            matches!(result, Err(ProtocolError::BadPayload { .. })),
            "kind {kind:#x} with {payload:?}: {result:?}"
        );
    }
}

#[test]
fn messages_are_refused_on_a_stream_where_they_mean_nothing() {
    for (stream, kind) in [(0, 0x03), (3, 0x07), (0, 0x86), (0, 0x87), (3, 0x88)] {
        let result = decode_one(&frame(0, stream, kind, &[]));
        assert!(matches!(result, Err(ProtocolError::WrongStream { .. })), "{result:?}");
    }
    let mut out = vec![1];
    assert!(Message::Shutdown.encode(1, &mut out).is_err());
    assert_eq!(out, [1]);
}

#[test]
fn a_message_that_fits_no_frame_is_not_encoded() {
    let mut out = vec![1, 2, 3];
    let result = Message::Stdin(vec![0; MAX_PAYLOAD + 1]).encode(1, &mut out);
    assert!(matches!(result, Err(ProtocolError::BadPayload { kind: "Stdin", .. })));
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn a_sender_that_spends_what_it_has_never_overruns_its_receiver() {
    let mut random = Random(99);
    let (mut sender, mut receiver) = (SendWindow::new(), ReceiveWindow::new());
    let (mut unread, mut passed) = (0, 0);
    for _ in 0..20_000 {
        let sent = sender.spend(random.below(30_000));
        receiver.arrived(sent).unwrap();
        unread += sent;
        assert!(unread <= INITIAL_CREDIT as usize);
        let read = random.below(unread + 1);
        unread -= read;
        passed += read;
        if let Some(credit) = receiver.consumed(read) {
            sender.refill(credit).unwrap();
        }
    }
    assert!(passed > 100 * INITIAL_CREDIT as usize, "the stream came to a halt at {passed}");
}

#[test]
fn a_sender_gets_going_again_once_everything_is_read() {
    let (mut sender, mut receiver) = (SendWindow::new(), ReceiveWindow::new());
    assert_eq!(sender.spend(1 << 20), INITIAL_CREDIT as usize);
    assert_eq!(sender.spend(1), 0);
    receiver.arrived(INITIAL_CREDIT as usize).unwrap();
    assert_eq!(receiver.arrived(1), Err(CreditError::Overrun));
    let mut given = 0;
    for _ in 0..INITIAL_CREDIT {
        given += receiver.consumed(1).unwrap_or(0);
    }
    assert_eq!(given, INITIAL_CREDIT);
    sender.refill(given).unwrap();
    assert_eq!(sender.refill(1), Err(CreditError::Overflow));
    assert_eq!(sender.available(), INITIAL_CREDIT as usize);
}

#[test]
fn a_status_is_told_as_a_shell_tells_it() {
    assert_eq!(Status::Code(3).shell_code(), 3);
    assert_eq!(Status::Signal(9).shell_code(), 137);
}

#[test]
fn a_transaction_programs_name_is_a_files_name() {
    for good in ["A", "MAIL", "back-up.2", "$x#@_", &"x".repeat(MAX_TPN)] {
        assert_eq!(Tpn::new(good).map(|tpn| tpn.to_string()).as_deref(), Some(good));
    }
    for bad in ["", ".", "..", ".x", "a/b", "a b", "a:b", "\u{e4}", &"x".repeat(MAX_TPN + 1)] {
        assert_eq!(Tpn::new(bad), None, "{bad:?}");
    }
}

#[test]
fn a_renewal_out_of_its_ranges_is_refused_and_keeps_its_entropy_to_itself() {
    let mut random = Random(3);
    let good = random.renewal();
    assert!(good.is_sound());
    assert!(!format!("{good:?}").contains("entropy"));
    let changes: [fn(&mut Renewal); 4] = [
        |renewal| renewal.entropy.truncate(31),
        |renewal| renewal.entropy.resize(257, 0),
        |renewal| renewal.hostname.clear(),
        |renewal| renewal.hostname.push('/'),
    ];
    for change in changes {
        let mut renewal = good.clone();
        change(&mut renewal);
        let mut bytes = Vec::new();
        Message::Renew(renewal).encode(0, &mut bytes).unwrap();
        assert!(matches!(decode_one(&bytes), Err(ProtocolError::BadPayload { .. })));
    }
}

#[test]
fn metadata_beyond_its_bounds_is_refused() {
    let path = format!("/{}", "x".repeat(MAX_METADATA_PATH));
    let body = vec![b' '; MAX_METADATA_BODY + 1];
    for message in [
        Message::MetadataRequest { id: 1, path },
        Message::MetadataReply { id: 1, status: 200, body },
    ] {
        let mut bytes = Vec::new();
        message.encode(0, &mut bytes).unwrap();
        assert!(matches!(decode_one(&bytes), Err(ProtocolError::BadPayload { .. })));
    }
}
