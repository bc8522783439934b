//! From [`Attach`] to bytes.

use super::{
    ALREADY_VERIFIED, ATTACH, Attach, ConversationType, EncodeError, FIXED_LEN, Field, KIND, Luwid,
    MAX_CORRELATOR, MAX_PIP, MAX_PIP_SUBFIELDS, MAX_TPN, PIP_FOLLOWS, Password, SUBSTITUTE,
    SYNC_CONFIRM, Security, SyncLevel, TpName,
};
use crate::ebcdic::{self, Alphabet};
use crate::gds::{self, GdsId};

impl Attach {
    /// The header's bytes, and behind them those of the PIP data.
    ///
    /// # Errors
    /// [`EncodeError`] if a field does not fit the format.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut out = vec![0, KIND];
        out.extend(ATTACH.to_be_bytes());
        out.push(self.flags());
        out.push(FIXED_LEN);
        out.push(match self.conversation_type {
            ConversationType::Basic => 0xd0,
            ConversationType::Mapped => 0xd1,
        });
        out.push(0);
        out.push(match self.sync_level {
            SyncLevel::None => 0,
            SyncLevel::Confirm => SYNC_CONFIRM,
        });
        counted(&mut out, Field::Tpn, &self.tpn.encode()?, 1, MAX_TPN)?;
        counted(&mut out, Field::User, &self.security.encode()?, 0, 255)?;
        let luwid = self.luwid.as_ref().map(Luwid::encode).transpose()?.unwrap_or_default();
        counted(&mut out, Field::Luwid, &luwid, 0, 26)?;
        counted(&mut out, Field::Correlator, &self.correlator, 0, MAX_CORRELATOR)?;
        if !self.group.is_empty() {
            counted(&mut out, Field::Group, &self.group, 1, MAX_CORRELATOR)?;
        }
        out[0] = length_byte(Field::Header, out.len(), 0, 255)?;
        if let Some(pip) = &self.pip {
            out.extend(encode_pip(pip)?);
        }
        Ok(out)
    }

    fn flags(&self) -> u8 {
        let security = match &self.security {
            Security::None | Security::Pgm { password: Password::Clear(_), .. } => 0,
            Security::Same { .. } => ALREADY_VERIFIED,
            Security::Pgm { password: Password::Substitute(_), .. } => SUBSTITUTE,
        };
        security | if self.pip.is_some() { PIP_FOLLOWS } else { 0 }
    }
}

impl TpName {
    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        if let Some(prefix) = self.service.filter(|prefix| *prefix >= 0x40) {
            return Err(EncodeError::Prefix(prefix));
        }
        let name = ebcdic::encode(&self.name, Alphabet::Graphic)
            .map_err(|source| EncodeError::Characters { field: Field::Tpn, source })?;
        Ok(self.service.into_iter().chain(name).collect())
    }
}

impl Luwid {
    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let name = counted_name(Field::Luwid, &self.lu_name, Alphabet::AE, 17)?;
        let mut out = vec![name.len() as u8];
        out.extend(name);
        out.extend(self.instance);
        out.extend(self.sequence.to_be_bytes());
        Ok(out)
    }
}

fn encode_pip(subfields: &[Vec<u8>]) -> Result<Vec<u8>, EncodeError> {
    let total: usize = 4 + subfields.iter().map(|data| gds::encoded_len(data.len())).sum::<usize>();
    if subfields.len() > MAX_PIP_SUBFIELDS || total > MAX_PIP {
        let most = MAX_PIP;
        return Err(EncodeError::Length { field: Field::Pip, length: total, least: 0, most });
    }
    let inner: Vec<u8> =
        subfields.iter().flat_map(|data| gds::encode(GdsId::PIP_SUBFIELD, data)).collect();
    Ok(gds::encode(GdsId::PIP, &inner))
}

/// `name` in EBCDIC, 1 to `most` characters.
pub(super) fn counted_name(
    field: Field,
    name: &str,
    alphabet: Alphabet,
    most: usize,
) -> Result<Vec<u8>, EncodeError> {
    let bytes = ebcdic::encode(name, alphabet)
        .map_err(|source| EncodeError::Characters { field, source })?;
    length_byte(field, bytes.len(), 1, most)?;
    Ok(bytes)
}

/// `length` as a byte, if it is in `least..=most`; `most` is at most 255.
pub(super) fn length_byte(
    field: Field,
    length: usize,
    least: usize,
    most: usize,
) -> Result<u8, EncodeError> {
    u8::try_from(length)
        .ok()
        .filter(|_| (least..=most).contains(&length))
        .ok_or(EncodeError::Length { field, length, least, most })
}

fn counted(
    out: &mut Vec<u8>,
    field: Field,
    data: &[u8],
    least: usize,
    most: usize,
) -> Result<(), EncodeError> {
    out.push(length_byte(field, data.len(), least, most)?);
    out.extend(data);
    Ok(())
}
