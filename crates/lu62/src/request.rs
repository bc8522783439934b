//! What is asked for, before there is a conversation.

use std::time::Duration;

use conversation::Attach;
use conversation::fmh5::{Password, Security, SyncLevel, TpName};

use crate::call::Conversation;
use crate::error::CallError;
use crate::transport::{Partner, Transport};

/// A password substitute that says: the token is the first parameter.
const TOKEN_IN_PIP: &[u8] = b"TOKEN";

/// A conversation that is to be had: CPI-C's *initialize*, and the calls that
/// set its characteristics. At first: sync level confirm, no security.
#[derive(Debug, Clone)]
pub struct Request {
    partner: Partner,
    attach: Attach,
    token: Option<String>,
    timeout: Option<Duration>,
}

impl Request {
    /// CMINIT: a conversation with a program at `partner`.
    pub fn initialize(partner: Partner) -> Self {
        Self { partner, attach: Attach::new(TpName::new("")), token: None, timeout: None }
    }

    /// CMSTPN: the program, `POOL` or `POOL/TPN`.
    pub fn set_tp_name(&mut self, name: &str) -> &mut Self {
        self.attach.tpn = TpName::new(name);
        self
    }

    /// CMSSL: whether confirmations can be asked for.
    pub fn set_sync_level(&mut self, level: SyncLevel) -> &mut Self {
        self.attach.sync_level = level;
        self
    }

    /// CMSCST, none: nobody in particular asks.
    pub fn set_security_none(&mut self) -> &mut Self {
        self.set_security(Security::None, None)
    }

    /// CMSCST, same: `user` asks. Believed on the local socket only, of that
    /// user and of an administrator.
    pub fn set_security_same(&mut self, user: &str) -> &mut Self {
        self.set_security(Security::Same { user: user.to_owned(), profile: None }, None)
    }

    /// CMSCST, program, with CMSCSU and CMSCSP: `user` asks, and proves it by a
    /// password.
    pub fn set_security_password(&mut self, user: &str, password: &str) -> &mut Self {
        let password = Password::Clear(password.to_owned());
        self.set_security(Security::Pgm { user: user.to_owned(), password, profile: None }, None)
    }

    /// The same with a signed token.
    pub fn set_security_token(&mut self, user: &str, token: &str) -> &mut Self {
        let password = Password::Substitute(TOKEN_IN_PIP.to_vec());
        let pgm = Security::Pgm { user: user.to_owned(), password, profile: None };
        self.set_security(pgm, Some(token.to_owned()))
    }

    fn set_security(&mut self, security: Security, token: Option<String>) -> &mut Self {
        self.attach.security = security;
        self.token = token;
        self
    }

    /// Parameters for the program; none at all if there are none of them.
    pub fn set_pip(&mut self, parameters: &[Vec<u8>]) -> &mut Self {
        self.attach.pip = (!parameters.is_empty()).then(|| parameters.to_vec());
        self
    }

    /// How long a call may wait for the partner; at first for ever.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> &mut Self {
        self.timeout = timeout;
        self
    }

    /// CMALLC: connects and begins the conversation; this side may send. What
    /// is asked for goes out with the first data, so a refusal shows at a later
    /// call; [`Conversation::confirm`] asks at once.
    ///
    /// # Errors
    /// [`CallError`]: no connection, or an Attach that cannot be written.
    pub fn allocate(&self) -> Result<Conversation, CallError> {
        let mut attach = self.attach.clone();
        if let Some(token) = &self.token {
            attach.pip.get_or_insert_default().insert(0, token.clone().into_bytes());
        }
        let transport = Transport::connect(&self.partner, self.timeout)?;
        Conversation::begin(transport, &attach, self.timeout)
    }
}
