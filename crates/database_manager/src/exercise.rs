//! A guest and a server that say anything.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use crate::broker::Broker;
use crate::connection::{Place, serve};
use crate::protocol::{First, Frames, Startup, first};
use crate::registry::Who;
use crate::server::{ServerSpec, Stream, exercise_handshake};

/// Lets a guest, and then a server, say these bytes.
///
/// # Panics
/// When something other comes of it than an answer in form, or an end.
pub fn exercise(bytes: &[u8]) {
    parse(bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    #[expect(clippy::expect_used, reason = "whoever exercises has a runtime")]
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        guest(bytes).await;
        server(bytes).await;
    });
}

fn parse(bytes: &[u8]) {
    if let Ok(First::Startup(Startup { parameters, .. })) = first(bytes) {
        let decided = ["user", "database", "options", "replication", "role"];
        assert!(parameters.iter().all(|(name, _)| !decided.contains(&name.as_str())));
    }
    let (mut whole, mut pieces) = (Frames::default(), Frames::default());
    whole.pass(bytes);
    bytes.chunks(3).for_each(|piece| pieces.pass(piece));
    assert_eq!(whole.between(), pieces.between());
}

/// A guest that nobody has given anything: it is answered, and never let in.
async fn guest(bytes: &[u8]) {
    let nowhere = "/nowhere".parse().map(|address| ServerSpec {
        address,
        authority: None,
        credentials: None,
    });
    let Ok(spec) = nowhere else { return };
    let Ok(broker) = Broker::open(spec, std::path::Path::new("/nowhere/logins.json")) else {
        return;
    };
    let broker = Arc::new(broker);
    let user = service_pool::UserId::new("alice").ok();
    let session = Arc::new(broker.session(user.map(|user| Who { user, groups: vec![] })));
    let place = Place::new(&broker, &session);
    let (Some(place), Ok((ours, theirs))) = (place, UnixStream::pair()) else { return };
    let streams = [ours, theirs].map(|stream| {
        let ready = stream.set_nonblocking(true);
        ready.and_then(|()| tokio::net::UnixStream::from_std(stream))
    });
    let [Ok(ours), Ok(mut theirs)] = streams else { return };
    let says = async {
        // It may be refused in the middle.
        let _ = theirs.write_all(bytes).await;
        let _ = theirs.shutdown().await;
        let mut heard = Vec::new();
        let _ = theirs.read_to_end(&mut heard).await;
        let heard: Vec<u8> = heard.into_iter().skip_while(|byte| *byte == b'N').collect();
        assert!(matches!(heard.first(), None | Some(b'E')), "it is never let in");
    };
    tokio::join!(serve(place, session, ours), says);
}

/// A server that says them to a broker that logs in.
async fn server(bytes: &[u8]) {
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    let mut stream: Stream = BufReader::new(Box::new(ours));
    let says = async {
        let mut sink = vec![0; 1024];
        let _ = theirs.write_all(bytes).await;
        let _ = theirs.shutdown().await;
        while matches!(theirs.read(&mut sink).await, Ok(1..)) {}
    };
    let logs_in = async {
        exercise_handshake(&mut stream).await;
        drop(stream);
    };
    let both = async { tokio::join!(says, logs_in) };
    let ended = tokio::time::timeout(Duration::from_secs(30), both).await;
    assert!(ended.is_ok(), "a beginning has an end");
}
