//! Traces for an OpenTelemetry collector, if the host file names one: OTLP by
//! HTTP, as JSON. A collector that is slow or away costs spans, and nobody time.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use crate::host_file::Collector;

/// Spans that wait to be sent; those after them are lost, and counted.
const WAITING: usize = 1024;
/// Spans that are sent at once.
const AT_ONCE: usize = 128;
/// How long one waits for others.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a collector may take for anything.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of its answer that are read.
const ANSWER: u64 = 4096;

/// What belongs together has one of these (W3C Trace Context).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trace {
    trace: [u8; 16],
    /// The span that all others are in.
    root: [u8; 8],
}

/// Something that took its time.
#[derive(Debug)]
pub(super) struct Span {
    name: String,
    ids: Trace,
    /// Its own id, and whether it is within the root.
    id: [u8; 8],
    inner: bool,
    from: SystemTime,
    to: SystemTime,
    attributes: Vec<(&'static str, String)>,
    problem: Option<String>,
}

/// Where spans go.
#[derive(Debug, Default)]
pub(super) struct Telemetry {
    sender: Option<SyncSender<Span>>,
    lost: AtomicU64,
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        let rest = bytes.get_mut(filled..)?;
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()).ok()?;
    }
    // All zero means none.
    bytes.iter().any(|byte| *byte != 0).then_some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Trace {
    /// As programs get it in `TRACEPARENT`.
    pub(super) fn parent(self) -> String {
        format!("00-{}-{}-01", hex(&self.trace), hex(&self.root))
    }
}

impl Telemetry {
    /// Sends spans to `collector`, if there is one. Says why that cannot be.
    pub(super) fn start(collector: Option<Collector>) -> Result<Self, String> {
        let Some(collector) = collector else { return Ok(Self::default()) };
        let tls = collector.authority.as_deref().map(trusting).transpose()?;
        let (sender, waiting) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("telemetry".into());
        let started = thread.spawn(move || send_all(&collector, tls.as_ref(), &waiting));
        started.map_err(|error| format!("there is no thread for it: {error}"))?;
        Ok(Self { sender: Some(sender), lost: AtomicU64::new(0) })
    }

    /// A new trace; `None` if nobody wants it.
    pub(super) fn trace(&self) -> Option<Trace> {
        self.sender.as_ref()?;
        Some(Trace { trace: random()?, root: random()? })
    }

    /// All that a trace is about, from its beginning until now.
    pub(super) fn whole(
        &self,
        ids: Trace,
        name: &str,
        from: SystemTime,
        attributes: Vec<(&'static str, String)>,
        problem: Option<String>,
    ) {
        let (name, to, id) = (name.to_owned(), SystemTime::now(), ids.root);
        self.send(Span { name, ids, id, inner: false, from, to, attributes, problem });
    }

    /// A part of it.
    pub(super) fn part(
        &self,
        ids: Trace,
        name: &str,
        (from, to): (SystemTime, SystemTime),
        attributes: Vec<(&'static str, String)>,
    ) {
        let Some(id) = random() else { return };
        let (name, problem) = (name.to_owned(), None);
        self.send(Span { name, ids, id, inner: true, from, to, attributes, problem });
    }

    fn send(&self, span: Span) {
        let Some(sender) = &self.sender else { return };
        if sender.try_send(span).is_err() && self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("traces are lost: the collector is too slow");
        }
    }
}

/// Trusts whom the certificates of a PEM file vouch for.
fn trusting(authority: &Path) -> Result<Arc<ClientConfig>, String> {
    let about = |what: String| format!("{}: {what}", authority.display());
    let pem = std::fs::read(authority).map_err(|error| about(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| about("it is not in PEM form".to_owned()))?;
        // Of the many that a system trusts, one may be too old to be understood.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(about("it has no certificate that could be trusted".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn send_all(collector: &Collector, tls: Option<&Arc<ClientConfig>>, waiting: &Receiver<Span>) {
    let mut away = false;
    while let Ok(first) = waiting.recv() {
        std::thread::sleep(PAUSE);
        let spans: Vec<_> =
            std::iter::once(first).chain(waiting.try_iter().take(AT_ONCE - 1)).collect();
        let sent = post(collector, tls, &body(&spans));
        match (&sent, away) {
            (Err(error), false) => {
                let Collector { host, port, .. } = collector;
                tracing::warn!(%error, "the collector at {host}:{port} takes no traces");
            }
            (Ok(()), true) => tracing::info!("the collector takes traces again"),
            _ => {}
        }
        away = sent.is_err();
    }
}

fn body(spans: &[Span]) -> String {
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let nanoseconds =
        |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
    let span = |span: &Span| -> Value {
        let attributes = span.attributes.iter().map(|(key, value)| text(key, value));
        let mut value = json!({
            "traceId": hex(&span.ids.trace),
            "spanId": hex(&span.id),
            "name": span.name,
            // A server's, or one within.
            "kind": if span.inner { 1 } else { 2 },
            "startTimeUnixNano": nanoseconds(span.from),
            "endTimeUnixNano": nanoseconds(span.to),
            "attributes": attributes.collect::<Vec<_>>(),
            "status": {},
        });
        if span.inner {
            value["parentSpanId"] = hex(&span.ids.root).into();
        }
        if let Some(problem) = &span.problem {
            value["status"] = json!({ "code": 2, "message": problem });
        }
        value
    };
    let version = env!("CARGO_PKG_VERSION");
    json!({ "resourceSpans": [{
        "resource": { "attributes": [text("service.name", "berth"), text("service.version", version)] },
        "scopeSpans": [{
            "scope": { "name": "berth", "version": version },
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }]})
    .to_string()
}

fn post(collector: &Collector, tls: Option<&Arc<ClientConfig>>, body: &str) -> io::Result<()> {
    let Collector { host, port, .. } = collector;
    let address = (host.as_str(), *port).to_socket_addrs()?.next();
    let address = address.ok_or_else(|| io::Error::other("its name has no address"))?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    match tls {
        None => exchange(stream, collector, body),
        Some(config) => {
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let connection = ClientConnection::new(Arc::clone(config), name);
            let connection = connection.map_err(io::Error::other)?;
            exchange(StreamOwned::new(connection, stream), collector, body)
        }
    }
}

/// One request and its answer.
fn exchange(mut stream: impl Read + Write, collector: &Collector, body: &str) -> io::Result<()> {
    let Collector { host, port, path, .. } = collector;
    let named = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {named}:{port}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    // It is read, so that the collector does not see it broken off.
    let _ = io::copy(&mut stream.take(ANSWER), &mut io::sink());
    let answer = String::from_utf8_lossy(&answer);
    match answer.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        _ => Err(io::Error::other(format!("it answered {answer}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_the_protocol_wants_them() {
        let ids = Trace { trace: [1; 16], root: [2; 8] };
        assert_eq!(ids.parent(), format!("00-{}-{}-01", "01".repeat(16), "02".repeat(8)));
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let part = Span {
            name: "wait".into(),
            ids,
            id: [3; 8],
            inner: true,
            from: at(1),
            to: at(2),
            attributes: vec![("user", "a\"<".into())],
            problem: Some("why".into()),
        };
        let body: Value = serde_json::from_str(&body(&[part])).unwrap();
        let span = &body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["parentSpanId"], "02".repeat(8));
        assert_eq!(span["startTimeUnixNano"], "1000000000");
        assert_eq!(span["attributes"][0]["value"]["stringValue"], "a\"<");
        assert_eq!(span["status"]["code"], 2);
    }

    #[test]
    fn a_collector_by_tls_is_one_that_the_authority_vouches_for() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            gateway::tls::load_or_make_as(dir.path(), name, &["127.0.0.1".to_owned()], None)
        };
        let (server, _) = (make("collector").unwrap(), make("other").unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = std::thread::spawn(move || {
            let mut heard = Vec::new();
            for _ in 0..2 {
                let (stream, _) = listener.accept().unwrap();
                let connection = rustls::ServerConnection::new(Arc::clone(&server)).unwrap();
                let mut stream = StreamOwned::new(connection, stream);
                let mut said = Vec::new();
                while !said.ends_with(b"spans") {
                    let mut part = [0; 512];
                    let Ok(count) = stream.read(&mut part) else { break };
                    said.extend_from_slice(&part[..count]);
                }
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
                heard.push(String::from_utf8(said).unwrap());
            }
            heard
        });
        let ask = |authority: &str| {
            let authority = dir.path().join(authority);
            let tls = trusting(&authority).unwrap();
            let (host, path) = ("127.0.0.1".into(), "/v1/traces".into());
            let collector = Collector { host, port, path, authority: Some(authority) };
            post(&collector, Some(&tls), "spans")
        };
        assert!(ask("other.crt").is_err());
        ask("collector.crt").unwrap();
        let heard = heard.join().unwrap();
        assert_eq!(heard[0], "");
        assert!(heard[1].starts_with("POST /v1/traces HTTP/1.1\r\n"), "{heard:?}");
        assert!(trusting(&dir.path().join("collector.key")).is_err());
        assert!(trusting(&dir.path().join("none")).is_err());
    }

    #[test]
    fn without_a_collector_there_are_no_traces() {
        assert!(Telemetry::start(None).unwrap().trace().is_none());
    }

    #[test]
    fn a_collector_that_is_away_costs_nobody_time() {
        // A port that nobody listens on.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (host, path) = ("127.0.0.1".into(), "/".into());
        let collector = Collector { host, port, path, authority: None };
        let telemetry = Telemetry::start(Some(collector)).unwrap();
        for _ in 0..3 * WAITING {
            let ids = telemetry.trace().unwrap();
            telemetry.whole(ids, "x", SystemTime::now(), Vec::new(), None);
        }
        assert!(telemetry.lost.load(Ordering::Relaxed) > 0);
    }
}
