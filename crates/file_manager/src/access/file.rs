//! The table's file: JSON, replaced as a whole.

use std::io;
use std::path::Path;

use identity::{FileError, read_private, replace_private};
use serde::{Deserialize, Serialize};

use super::{AccessError, AccessTable, SpaceEntry};
use crate::names::SpaceName;

/// Longest file of a table, in bytes.
const MAX_FILE: u64 = 256 << 20;
/// The form of the file.
const FORM: u32 = 1;

/// The file of the access identity table cannot be used. The operator is to blame.
#[derive(Debug, thiserror::Error)]
pub enum TableFileError {
    /// It cannot be read or written, or others can.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no such table.
    #[error("it is no table of spaces: {0}")]
    Malformed(String),
    /// What it says cannot be.
    #[error(transparent)]
    Access(#[from] AccessError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    form: u32,
    space: Vec<Named>,
}

#[derive(Serialize, Deserialize)]
struct Named {
    name: SpaceName,
    #[serde(flatten)]
    entry: SpaceEntry,
}

impl AccessTable {
    /// Reads the text of a table's file.
    ///
    /// # Errors
    /// [`TableFileError`] when it is malformed or breaks a rule.
    pub fn parse(text: &str) -> Result<Self, TableFileError> {
        let malformed = |error: serde_json::Error| TableFileError::Malformed(error.to_string());
        let page: Page = serde_json::from_str(text).map_err(malformed)?;
        if page.form != FORM {
            return Err(TableFileError::Malformed(format!("its form is {}", page.form)));
        }
        let mut table = Self::default();
        for Named { name, entry } in page.space {
            if !table.add_space(&name, entry.owner.as_ref())? {
                return Err(AccessError::Taken(name).into());
            }
            table.set_quota(&name, entry.quota)?;
            for grant in entry.grants {
                table.grant(&name, grant)?;
            }
        }
        Ok(table)
    }

    /// The text of the table's file.
    ///
    /// # Errors
    /// [`TableFileError::Malformed`] if it cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, TableFileError> {
        let named = |(name, entry): (&SpaceName, &SpaceEntry)| Named {
            name: name.clone(),
            entry: entry.clone(),
        };
        let page = Page { form: FORM, space: self.spaces().map(named).collect() };
        serde_json::to_string_pretty(&page)
            .map_err(|error| TableFileError::Malformed(error.to_string()))
    }

    /// Reads the table's file; an empty table if there is none.
    ///
    /// # Errors
    /// [`TableFileError`] if it cannot be read or is no such table.
    pub fn load(path: &Path) -> Result<Self, TableFileError> {
        match read_private(path, MAX_FILE) {
            Ok(text) => Self::parse(&text),
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the table's file as a whole, readable by its owner only.
    ///
    /// # Errors
    /// [`TableFileError`] if it cannot be written; the old one is still there.
    pub fn save(&self, path: &Path) -> Result<(), TableFileError> {
        Ok(replace_private(path, &self.to_json()?)?)
    }
}
