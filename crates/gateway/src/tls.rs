//! The gateway's certificate and key.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

/// Why there is no certificate to show. The operator is to blame.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not PEM, or has nothing of what it should.
    #[error("{path} has no {what} in PEM form")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// Certificate and key do not go together.
    #[error("the certificate and the key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The clients' authorities cannot be used.
    #[error("the authorities of clients' certificates cannot be used: {0}")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
    /// A certificate for these names cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// The certificates of a file in PEM form, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = || TlsError::Pem { path: path.to_owned(), what: "certificate" };
    let all: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|_| pem())?;
    if all.is_empty() { Err(pem()) } else { Ok(all) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

/// A server's TLS configuration of a certificate chain and its key, both PEM.
/// With a file of `authorities`, in PEM form too, clients are asked for a
/// certificate: one that none of them gave, or that has expired, is refused;
/// none is not.
///
/// # Errors
/// [`TlsError`].
pub fn load(
    certificate: &Path,
    key: &Path,
    authorities: Option<&Path>,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let chain = certificates(certificate)?;
    let no_key = |_| TlsError::Pem { path: key.to_owned(), what: "private key" };
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(no_key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let config = match authorities {
        None => config.with_no_client_auth(),
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            certificates(path)?.into_iter().try_for_each(|root| roots.add(root))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
    };
    Ok(Arc::new(config.with_single_cert(chain, secret)?))
}

/// The same of `gateway.crt` and `gateway.key` in `directory`. If there is no
/// certificate yet it is made: self-signed, for `names` (of hosts, or
/// addresses), the key readable to its owner only. Clients trust the
/// certificate's file.
///
/// # Errors
/// [`TlsError`].
pub fn load_or_make(
    directory: &Path,
    names: &[String],
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    load_or_make_as(directory, "gateway", names, None)
}

/// The same of `NAME.crt` and `NAME.key`, with `authorities` as for [`load`].
///
/// # Errors
/// [`TlsError`].
pub fn load_or_make_as(
    directory: &Path,
    name: &str,
    names: &[String],
    authorities: Option<&Path>,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let file = |extension: &str| directory.join(format!("{name}.{extension}"));
    let (certificate, key) = (file("crt"), file("key"));
    if !certificate.exists() {
        let made = rcgen::generate_simple_self_signed(names)?;
        // The key first: a certificate that is there has its key.
        write(&key, 0o600, &made.signing_key.serialize_pem())?;
        write(&certificate, 0o644, &made.cert.pem())?;
    }
    load(&certificate, &key, authorities)
}

/// Writes a file whole or not at all.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), TlsError> {
    let fail = |source| TlsError::File { path: path.to_owned(), source };
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(&fresh).map_err(fail)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
    fs::rename(&fresh, path).map_err(fail)
}
