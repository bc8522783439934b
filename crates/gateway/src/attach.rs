//! From an Attach to a request: what it asks for, and who asks.

use conversation::Sense;
use conversation::fmh5::{Attach, ConversationType, Password, Security};

use crate::TOKEN_IN_PIP;
use crate::service::{AttachRequest, Authority, Credential, Principal};

/// How a connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Over the network: only what a user proves is believed.
    Network,
    /// Over the local socket, by a process of this uid.
    Local {
        /// The peer's uid.
        uid: u32,
        /// The uid that this process runs under.
        own: u32,
    },
}

/// Makes a request of an Attach.
///
/// # Errors
/// The sense code that refuses it; one and the same for everything that is
/// wrong with its security.
pub(crate) async fn request(
    attach: Attach,
    origin: Origin,
    authority: &dyn Authority,
) -> Result<AttachRequest, Sense> {
    let Attach { tpn, conversation_type, sync_level, security, luwid, mut pip, .. } = attach;
    let principal = match security {
        Security::None => None,
        Security::Same { user, .. } => Some(believe(user, origin, authority).await?),
        Security::Pgm { user, password, .. } => {
            let credential = match password {
                Password::Clear(text) => Credential::Password(text),
                Password::Substitute(bytes) if bytes == TOKEN_IN_PIP => {
                    Credential::Token(token(&mut pip)?)
                }
                Password::Substitute(_) => return Err(Sense::SECURITY_NOT_VALID),
            };
            let proved = authority.authenticate(&user, &credential).await;
            Some(proved.map_err(|_| Sense::SECURITY_NOT_VALID)?)
        }
    };
    if tpn.service.is_some() {
        return Err(Sense::TPN_NOT_RECOGNIZED);
    }
    if conversation_type == ConversationType::Basic {
        return Err(Sense::CONVERSATION_TYPE_MISMATCH);
    }
    let lu_name = luwid.map(|luwid| luwid.lu_name);
    Ok(AttachRequest { lu_name, tpn: tpn.name, principal, sync_level, pip })
}

/// A user whom the caller says to have verified: themselves, or anybody if the
/// caller is an administrator.
async fn believe(
    user: String,
    origin: Origin,
    authority: &dyn Authority,
) -> Result<Principal, Sense> {
    let Origin::Local { uid, own } = origin else { return Err(Sense::SECURITY_NOT_VALID) };
    let themselves = authority.peer(uid).await.filter(|peer| peer.user == user);
    let believed = match themselves {
        None if uid == 0 || uid == own => authority.named(&user).await,
        themselves => themselves,
    };
    believed.ok_or(Sense::SECURITY_NOT_VALID)
}

/// Takes the token out of the parameters.
fn token(pip: &mut Option<Vec<Vec<u8>>>) -> Result<String, Sense> {
    let parameters = pip.as_mut().filter(|parameters| !parameters.is_empty());
    let bytes = parameters.ok_or(Sense::SECURITY_NOT_VALID)?.remove(0);
    if pip.as_ref().is_some_and(Vec::is_empty) {
        *pip = None;
    }
    String::from_utf8(bytes).map_err(|_| Sense::SECURITY_NOT_VALID)
}
