//! A small HTTP service that is not Berth's, and yet knows who asks it: programs in
//! machines of a pool show the token that their host gave them.
//!
//! ```sh
//! cargo run --example identity_service -- 127.0.0.1:8000 ~/.local/state/berth/api.sock
//! ```
//!
//! It keeps a note for each user. `POST /note` leaves one, `GET /note` gets it; both
//! want `Authorization: Bearer TOKEN` with a token for the audience `notes`.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use tokio::net::TcpListener;

/// Whom tokens have to be for.
const AUDIENCE: &str = "notes";
/// Who has to have made them: `issuer` in `[gateway]` of the host file.
const ISSUER: &str = "berth";
/// Bytes of a note, and of a key set.
const MOST: usize = 64 << 10;

/// What a token says, as far as this service wants to know.
#[derive(Deserialize)]
struct Claims {
    /// The user.
    sub: String,
    /// Which machine it is that is this user's just now.
    berth: Option<Machine>,
}

#[derive(Deserialize)]
struct Machine {
    machine: String,
}

struct Service {
    /// Where the host's keys are to be had.
    host: PathBuf,
    keys: Mutex<JwkSet>,
    notes: Mutex<HashMap<String, String>>,
}

impl Service {
    /// Who shows this token. Whoever is refused learns no more than that.
    fn who(&self, headers: &HeaderMap) -> Result<Claims, StatusCode> {
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        token.and_then(|token| self.verify(token)).ok_or(StatusCode::UNAUTHORIZED)
    }

    fn verify(&self, token: &str) -> Option<Claims> {
        let id = decode_header(token).ok()?.kid?;
        let key = self.key(&id)?;
        // The algorithm is this service's choice and not the token's.
        let mut good = Validation::new(Algorithm::EdDSA);
        good.set_audience(&[AUDIENCE]);
        good.set_issuer(&[ISSUER]);
        good.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        good.validate_nbf = true;
        good.leeway = 5;
        decode::<Claims>(token, &key, &good).ok().map(|token| token.claims)
    }

    /// The key of this name; the host is asked if it is a new one.
    fn key(&self, id: &str) -> Option<DecodingKey> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.find(id).is_none() {
            *keys = fetch(&self.host).ok()?;
        }
        DecodingKey::from_jwk(keys.find(id)?).ok()
    }
}

/// The host's keys, from its socket. From another host ask
/// `https://HOST:7601/.well-known/jwks.json` by whatever HTTP client you have.
fn fetch(host: &PathBuf) -> io::Result<JwkSet> {
    let mut stream = UnixStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request =
        "GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MOST as u64).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(serde_json::from_str(body)?)
}

async fn read(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    let who = service.who(&headers)?;
    let notes = service.notes.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(notes.get(&who.sub).cloned().unwrap_or_default())
}

async fn write(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    note: String,
) -> Result<String, StatusCode> {
    let who = service.who(&headers)?;
    let from = who.berth.map_or("nowhere".to_owned(), |berth| berth.machine);
    let said = format!("kept for {} from {from}\n", who.sub);
    let mut notes = service.notes.lock().unwrap_or_else(PoisonError::into_inner);
    notes.insert(who.sub, note);
    Ok(said)
}

/// Serves at this address, with the keys of the host whose socket this is.
///
/// # Errors
/// When it cannot listen any more.
pub async fn serve(listener: TcpListener, host: PathBuf) -> io::Result<()> {
    let keys = Mutex::new(JwkSet { keys: Vec::new() });
    let service = Arc::new(Service { host, keys, notes: Mutex::default() });
    let routes = Router::new()
        .route("/note", get(read).post(write))
        .layer(axum::extract::DefaultBodyLimit::max(MOST))
        .with_state(service);
    axum::serve(listener, routes).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(host)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("say where to listen, and the path of a host's api.sock"));
    };
    serve(TcpListener::bind(address).await?, host.into()).await
}
