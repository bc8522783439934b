//! The table's file: JSON, replaced as a whole.

use std::io;
use std::path::Path;

use identity::{FileError, Subject, read_private, replace_private};
use serde::{Deserialize, Serialize};

use super::{Login, LoginTable, TableError};

/// Longest file of a table, in bytes.
const MAX_FILE: u64 = 64 << 20;
/// The form of the file.
const FORM: u32 = 1;

/// The file of the identity table cannot be used. The operator is to blame.
#[derive(Debug, thiserror::Error)]
pub enum TableFileError {
    /// It cannot be read or written, or others can.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no such table.
    #[error("it is no table of logins: {0}")]
    Malformed(String),
    /// What it says cannot be.
    #[error(transparent)]
    Table(#[from] TableError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    form: u32,
    login: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    of: Subject,
    #[serde(flatten)]
    login: Login,
}

impl LoginTable {
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
        for Row { of, login } in page.login {
            if table.0.contains_key(&of) {
                return Err(TableFileError::Malformed(format!("{of} is there twice")));
            }
            table.grant(of, login)?;
        }
        Ok(table)
    }

    /// The text of the table's file.
    ///
    /// # Errors
    /// [`TableFileError::Malformed`] if it cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, TableFileError> {
        let row = |(of, login): (&Subject, &Login)| Row { of: of.clone(), login: login.clone() };
        let page = Page { form: FORM, login: self.rows().map(row).collect() };
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
