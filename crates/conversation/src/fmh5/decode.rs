//! From bytes to [`Attach`]; whatever comes is refused or understood.

use super::{
    ALREADY_VERIFIED, ATTACH, Attach, ConversationType, DecodeError, FIXED_LEN, Field, KIND, Luwid,
    MAX_CORRELATOR, MAX_PIP, MAX_PIP_SUBFIELDS, MAX_TPN, PERSISTENT, PIP_FOLLOWS, SUBSTITUTE,
    SYNC_CONFIRM, SYNC_MASK, Security, SyncLevel, TpName,
};
use crate::ebcdic::{self, Alphabet};
use crate::gds::{self, GdsId};

impl Attach {
    /// Reads an Attach and its PIP data; `bytes` are exactly these.
    ///
    /// # Errors
    /// [`DecodeError`], which knows the sense code to answer with.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let length = usize::from(*bytes.first().ok_or(DecodeError::NotAttach)?);
        let (header, pip) =
            bytes.split_at_checked(length).ok_or(DecodeError::Length(Field::Header))?;
        let (fixed, variable) = header.split_first_chunk::<9>().ok_or(DecodeError::NotAttach)?;
        let [_, kind, c0, c1, flags, fixed_len, resource, _, sync] = *fixed;
        if kind & 0x7f != KIND || u16::from_be_bytes([c0, c1]) != ATTACH || fixed_len != FIXED_LEN {
            return Err(DecodeError::NotAttach);
        }
        let conversation_type = match resource {
            0xd0 => ConversationType::Basic,
            0xd1 => ConversationType::Mapped,
            other => return Err(DecodeError::ConversationType(other)),
        };
        let sync_level = match sync & SYNC_MASK {
            0 => SyncLevel::None,
            SYNC_CONFIRM => SyncLevel::Confirm,
            other => return Err(DecodeError::SyncLevel(other)),
        };
        if flags & PERSISTENT != 0 {
            return Err(DecodeError::Security("persistent verification is not supported"));
        }
        let mut fields = Fields(variable);
        let tpn = TpName::decode(fields.next(Field::Tpn, MAX_TPN)?)?;
        let security = Security::decode(
            fields.next(Field::User, 255)?,
            flags & ALREADY_VERIFIED != 0,
            flags & SUBSTITUTE != 0,
        )?;
        let luwid = match fields.next(Field::Luwid, 26)? {
            [] => None,
            bytes => Some(Luwid::decode(bytes)?),
        };
        let correlator = fields.next(Field::Correlator, MAX_CORRELATOR)?.to_vec();
        let group = fields.next(Field::Group, MAX_CORRELATOR)?.to_vec();
        let pip = decode_pip(pip, flags & PIP_FOLLOWS != 0)?;
        Ok(Self { tpn, conversation_type, sync_level, security, luwid, correlator, group, pip })
    }
}

/// The fields with a length byte each, from the program's name on. Behind the
/// last one there are none of length 0.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self, field: Field, most: usize) -> Result<&'a [u8], DecodeError> {
        let Some((&length, rest)) = self.0.split_first() else { return Ok(&[]) };
        let length = usize::from(length);
        let split = rest.split_at_checked(length).filter(|_| length <= most);
        let (data, rest) = split.ok_or(DecodeError::Length(field))?;
        self.0 = rest;
        Ok(data)
    }
}

impl TpName {
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (service, name) = match bytes {
            [] => return Err(DecodeError::Length(Field::Tpn)),
            [prefix, name @ ..] if *prefix < 0x40 => (Some(*prefix), name),
            name => (None, name),
        };
        let name = ebcdic::decode(name, Alphabet::Graphic)
            .map_err(|source| DecodeError::Characters { field: Field::Tpn, source })?;
        Ok(Self { service, name })
    }
}

impl Luwid {
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let malformed = DecodeError::Length(Field::Luwid);
        let Some((&length, rest)) = bytes.split_first().filter(|(length, _)| **length > 0) else {
            return Err(malformed);
        };
        let Some((name, numbers)) = rest.split_at_checked(usize::from(length)) else {
            return Err(malformed);
        };
        let Ok([i0, i1, i2, i3, i4, i5, s0, s1]) = <[u8; 8]>::try_from(numbers) else {
            return Err(malformed);
        };
        let lu_name = ebcdic::decode(name, Alphabet::AE)
            .map_err(|source| DecodeError::Characters { field: Field::Luwid, source })?;
        let sequence = u16::from_be_bytes([s0, s1]);
        Ok(Self { lu_name, instance: [i0, i1, i2, i3, i4, i5], sequence })
    }
}

fn decode_pip(bytes: &[u8], announced: bool) -> Result<Option<Vec<Vec<u8>>>, DecodeError> {
    match (announced, bytes) {
        (false, []) => return Ok(None),
        (false, _) => return Err(DecodeError::Pip("there, but not announced")),
        (true, []) => return Err(DecodeError::Pip("announced, but not there")),
        (true, _) => {}
    }
    let (id, inner, rest) =
        gds::decode(bytes, MAX_PIP).map_err(|_| DecodeError::Pip("malformed or too long"))?;
    if id != GdsId::PIP || !rest.is_empty() || bytes.len() > MAX_PIP {
        return Err(DecodeError::Pip("not one variable X'12F5'"));
    }
    let mut subfields = Vec::new();
    let mut rest = inner.as_slice();
    while !rest.is_empty() {
        let (id, data, after) =
            gds::decode(rest, MAX_PIP).map_err(|_| DecodeError::Pip("a malformed subfield"))?;
        if id != GdsId::PIP_SUBFIELD || subfields.len() == MAX_PIP_SUBFIELDS {
            return Err(DecodeError::Pip("not up to 64 subfields X'12E2'"));
        }
        subfields.push(data);
        rest = after;
    }
    Ok(Some(subfields))
}
