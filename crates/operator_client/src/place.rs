//! Where a host is, and how its client proves who it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::Uri;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::error::ClientError;

/// Where HTTPS is, if nothing else is said.
const PORT: u16 = 443;

/// Where a host is.
#[derive(Debug, Clone)]
pub enum Place {
    /// On this machine: its local socket, whose owner is administrator.
    Local(PathBuf),
    /// Elsewhere.
    Remote(Remote),
}

/// A host that is reached by TLS.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Name or address.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) token: Option<String>,
}

/// How a client proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// By a token of `berth api token`.
    Token(String),
    /// By a certificate and its key, both in PEM.
    Certificate {
        /// The certificate, and those that vouch for it.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
}

impl Remote {
    /// The host at `url`, if a certificate in the PEM file `trust` vouches for it.
    ///
    /// # Errors
    /// [`ClientError::Settings`].
    pub fn new(url: &str, trust: &Path, proof: &Proof) -> Result<Self, ClientError> {
        let (host, port) = parse(url)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(trust)? {
            let bad = |error| settings(format!("{}: {error}", trust.display()));
            roots.add(certificate).map_err(bad)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions();
        let config = config.map_err(|error| settings(error.to_string()))?;
        let config = config.with_root_certificates(roots);
        let (tls, token) = match proof {
            Proof::Token(token) => (config.with_no_client_auth(), Some(token.trim().to_owned())),
            Proof::Certificate { certificate, key } => {
                let bad = |error| settings(format!("{}: {error}", key.display()));
                let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
                    .map_err(|_| settings(format!("{} has no key in PEM form", key.display())))?;
                let chain = certificates(certificate)?;
                (config.with_client_auth_cert(chain, secret).map_err(bad)?, None)
            }
        };
        Ok(Self { host, port, tls: Arc::new(tls), token })
    }

    /// As a request names it.
    pub(crate) fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == PORT { host } else { format!("{host}:{}", self.port) }
    }
}

impl Place {
    /// For people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Local(socket) => format!("on {}", directory(socket).display()),
            Self::Remote(remote) => format!("at https://{}", remote.authority()),
        }
    }
}

/// The state directory that a local socket is in.
pub(crate) fn directory(socket: &Path) -> PathBuf {
    socket.parent().unwrap_or(socket).to_owned()
}

fn settings(what: String) -> ClientError {
    ClientError::Settings(what)
}

/// Host and port of an address like `https://berth.example:7601`.
fn parse(url: &str) -> Result<(String, u16), ClientError> {
    let wrong = || settings(format!("{url:?} is no address of a host; write https://NAME:PORT"));
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let plain = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let authority = uri.authority().filter(|one| !one.as_str().contains('@')).ok_or_else(wrong)?;
    if uri.scheme_str() != Some("https") || !plain {
        return Err(wrong());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok((host, authority.port_u16().unwrap_or(PORT)))
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path)
        .map_err(|error| settings(format!("{} cannot be read: {error}", path.display())))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(settings(format!("{} has no certificate in PEM form", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_name_and_perhaps_a_port() {
        let good = |url: &str| parse(url).unwrap();
        assert_eq!(good("https://berth.example:7601"), ("berth.example".to_owned(), 7601));
        assert_eq!(good("https://berth.example/"), ("berth.example".to_owned(), 443));
        assert_eq!(good("https://[::1]:7601"), ("::1".to_owned(), 7601));
        for bad in [
            "",
            "berth.example:7601",
            "http://berth.example",
            "https://",
            "https://a/b",
            "https://user@a",
            "https://a?b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
