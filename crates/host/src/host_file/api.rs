//! The operator's interface in the host file.
//!
//! ```toml
//! [api]
//! listen = "127.0.0.1:7601"     # HTTPS; default: the local socket only
//! certificate = "host.crt"      # with key; default: made in the state directory
//! key = "host.key"
//! names = ["berth.example"]     # names of this host that clients may use
//! client_authorities = "ca.crt" # with clients: certificates of these let in, too
//! clients = "clients.toml"      # what their bearers may do
//! ```

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::HostFileError;

/// Where operators come in, beside the local socket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiSpec {
    /// Network address, with TLS; none: only the local socket.
    pub listen: Option<SocketAddr>,
    /// PEM files of certificate and key; none: made at first use.
    pub certificate: Option<PathBuf>,
    /// See [`ApiSpec::certificate`].
    pub key: Option<PathBuf>,
    /// PEM file of the authorities whose certificates let clients in; none:
    /// tokens only.
    pub client_authorities: Option<PathBuf>,
    /// The file that says what bearers of certificates may do.
    pub clients: Option<PathBuf>,
    /// Names of this host, beside its addresses and `localhost`.
    pub names: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApi {
    listen: Option<Spanned<String>>,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<Spanned<PathBuf>>,
    client_authorities: Option<Spanned<PathBuf>>,
    clients: Option<Spanned<PathBuf>>,
    #[serde(default)]
    names: Vec<Spanned<String>>,
}

impl RawApi {
    /// Checks it; `wrong` makes an error of a place and what is wrong there.
    pub(super) fn check(
        self,
        wrong: impl Fn(&Range<usize>, &str) -> HostFileError,
    ) -> Result<ApiSpec, HostFileError> {
        let listen = match &self.listen {
            None => None,
            Some(listen) => Some(listen.get_ref().parse().map_err(|_| {
                let what = "listen: write an address and a port, like \"127.0.0.1:7601\"";
                wrong(&listen.span(), what)
            })?),
        };
        if let (Some(one), None) | (None, Some(one)) = (&self.certificate, &self.key) {
            let what = "name certificate and key, or neither to have them made";
            return Err(wrong(&one.span(), what));
        }
        if let (Some(one), None) | (None, Some(one)) = (&self.client_authorities, &self.clients) {
            let what = "name client_authorities and clients, or neither to have tokens only";
            return Err(wrong(&one.span(), what));
        }
        let signs = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        let bad = |name: &&Spanned<String>| {
            let name = name.get_ref();
            name.is_empty() || name.len() > 253 || !name.bytes().all(signs)
        };
        if let Some(name) = self.names.iter().find(bad) {
            let what = "names: write names of this host, like \"berth.example\", without ports";
            return Err(wrong(&name.span(), what));
        }
        Ok(ApiSpec {
            listen,
            certificate: self.certificate.map(Spanned::into_inner),
            key: self.key.map(Spanned::into_inner),
            client_authorities: self.client_authorities.map(Spanned::into_inner),
            clients: self.clients.map(Spanned::into_inner),
            names: self.names.into_iter().map(Spanned::into_inner).collect(),
        })
    }
}

impl ApiSpec {
    /// The files it names.
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let own = self.certificate.iter_mut().chain(&mut self.key);
        own.chain(&mut self.client_authorities).chain(&mut self.clients)
    }
}
