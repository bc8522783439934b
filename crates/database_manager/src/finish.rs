//! The end at the server: what a guest has begun does not go on without it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::protocol::CancelKey;
use crate::registry::Stop;
use crate::relay::Ended;
use crate::server::{Server, Stream};
use crate::table::Login;

/// How long the server may take to close by itself: it does so unless something
/// runs.
const BY_ITSELF: Duration = Duration::from_millis(200);
/// And after what runs was cancelled.
const CANCELLED: Duration = Duration::from_secs(2);

/// Closes the server's end. What runs is cancelled, and the connection ended by
/// force if that is of no use: a program can refuse to be cancelled.
pub(crate) async fn finish(
    server: &Server,
    login: &Login,
    mut stream: Stream,
    key: Option<CancelKey>,
    ended: Ended,
) {
    if ended == Ended::ByServer {
        return;
    }
    // It fails only if the server was first.
    let _ = stream.shutdown().await;
    let at_once = matches!(ended, Ended::Stopped(Stop::Over | Stop::Revoked) | Ended::TooLong);
    if !at_once && closes(&mut stream, BY_ITSELF).await {
        return;
    }
    let Some(key) = key else { return };
    if at_once && closes(&mut stream, Duration::ZERO).await {
        return;
    }
    server.cancel(key).await;
    if closes(&mut stream, CANCELLED).await {
        return;
    }
    if let Err(error) = server.terminate(login, key.process).await {
        tracing::warn!(role = %login.role, %error, "a connection could not be ended by force");
    }
}

/// Whether the server closes in time; what it still says nobody hears.
async fn closes(stream: &mut Stream, limit: Duration) -> bool {
    let drained = async {
        let mut buffer = vec![0; 16 << 10];
        while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
    };
    timeout(limit, drained).await.is_ok()
}
