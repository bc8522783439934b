//! The host that commands are for: the one on this machine, or another one.

use operator_api::model::{Command, Outcome};
use operator_client::{Client, Heard, Place, Proof, Remote};

use crate::args::Global;
use crate::{Failure, state_dir};

/// A token for another host, so that it need not be in a file.
const TOKEN: &str = "BERTH_TOKEN";

/// Where the host is.
pub(crate) fn place(global: &Global) -> Result<Place, Failure> {
    let Some(url) = &global.remote.host else {
        let dir = state_dir(global)?;
        dir.check()?;
        return Ok(Place::Local(dir.api_socket()));
    };
    let other = |what: &str| Failure::Other(what.to_owned());
    let trust = global.remote.ca.as_ref();
    let trust = trust.ok_or_else(|| {
        other("name the certificate that vouches for the host (its api.crt) with --ca or BERTH_CA")
    })?;
    Ok(Place::Remote(Remote::new(url, trust, &proof(global)?)?))
}

fn proof(global: &Global) -> Result<Proof, Failure> {
    let remote = &global.remote;
    match (&remote.token_file, &remote.certificate, &remote.key) {
        (Some(file), _, _) => {
            let text = std::fs::read_to_string(file);
            text.map(Proof::Token).map_err(|error| {
                Failure::Other(format!("{} cannot be read: {error}", file.display()))
            })
        }
        (None, Some(certificate), Some(key)) => {
            Ok(Proof::Certificate { certificate: certificate.clone(), key: key.clone() })
        }
        _ => std::env::var(TOKEN).map(Proof::Token).map_err(|_| {
            Failure::Other(
                "say who you are: --token-file, BERTH_TOKEN, or --certificate with --key"
                    .to_owned(),
            )
        }),
    }
}

/// A client of the host.
pub(crate) fn client(global: &Global) -> Result<Client, Failure> {
    Ok(Client::new(&place(global)?)?)
}

/// Has a command carried out; notes go to standard error.
pub(crate) fn carry_out(global: &Global, command: &Command) -> Result<Outcome, Failure> {
    Ok(client(global)?.carry_out(command, note)?)
}

/// Shows a note of the host.
pub(crate) fn note(heard: Heard<'_>) {
    if let Heard::Note(text) = heard {
        eprintln!("{text}");
    }
}
