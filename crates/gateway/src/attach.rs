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
    let early = Vec::new();
    Ok(AttachRequest { lu_name, tpn: tpn.name, principal, sync_level, pip, early })
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use conversation::fmh5::TpName;

    use super::*;
    use crate::service::NotValid;

    /// Users named like their uid; one password.
    struct Users;

    #[async_trait]
    impl Authority for Users {
        async fn authenticate(
            &self,
            user: &str,
            given: &Credential,
        ) -> Result<Principal, NotValid> {
            let right = Credential::Password("right".to_owned());
            if *given == right { Ok(principal(user)) } else { Err(NotValid) }
        }

        async fn peer(&self, uid: u32) -> Option<Principal> {
            Some(principal(&uid.to_string()))
        }

        async fn named(&self, user: &str) -> Option<Principal> {
            (user != "nobody").then(|| principal(user))
        }
    }

    fn principal(user: &str) -> Principal {
        Principal { user: user.to_owned(), groups: Vec::new() }
    }

    fn ask(attach: Attach, origin: Origin) -> Result<AttachRequest, Sense> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(request(attach, origin, &Users))
    }

    fn same(user: &str) -> Attach {
        let security = Security::Same { user: user.to_owned(), profile: None };
        Attach { security, ..Attach::new(TpName::new("p/t")) }
    }

    #[test]
    fn a_local_process_is_believed_for_its_own_user_an_administrator_for_all() {
        let of = |uid| Origin::Local { uid, own: 7 };
        let who = |user, origin| ask(same(user), origin).map(|request| request.principal);
        for (user, origin) in [("5", of(5)), ("6", of(0)), ("6", of(7))] {
            assert_eq!(who(user, origin), Ok(Some(principal(user))));
        }
        for (user, origin) in
            [("6", of(5)), ("nobody", of(0)), ("nobody", of(7)), ("5", Origin::Network)]
        {
            assert_eq!(who(user, origin), Err(Sense::SECURITY_NOT_VALID));
        }
    }

    #[test]
    fn a_token_that_is_not_there_and_a_substitute_that_is_none_are_not_valid() {
        let pgm = |bytes: &[u8], pip| {
            let password = Password::Substitute(bytes.to_vec());
            let security = Security::Pgm { user: "5".into(), password, profile: None };
            Attach { security, pip, ..same("5") }
        };
        let not_utf8 = Some(vec![vec![0xff]]);
        for attach in [
            pgm(TOKEN_IN_PIP, None),
            pgm(TOKEN_IN_PIP, Some(Vec::new())),
            pgm(TOKEN_IN_PIP, not_utf8),
            pgm(b"other", Some(vec![b"right".to_vec()])),
        ] {
            assert_eq!(ask(attach, Origin::Network), Err(Sense::SECURITY_NOT_VALID));
        }
    }

    #[test]
    fn basic_conversations_and_service_programs_are_not_had_here() {
        let basic = Attach { conversation_type: ConversationType::Basic, ..same("5") };
        let origin = Origin::Local { uid: 5, own: 7 };
        assert_eq!(ask(basic, origin), Err(Sense::CONVERSATION_TYPE_MISMATCH));
        let tpn = TpName { service: Some(0x30), name: "005".into() };
        assert_eq!(ask(Attach { tpn, ..same("5") }, origin), Err(Sense::TPN_NOT_RECOGNIZED));
    }
}
