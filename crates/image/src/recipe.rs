//! Recipes: what goes into an image.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::BuildError;

const BUILT_IN: [(&str, &str); 3] = [
    ("minimal", include_str!("../../../recipes/minimal.toml")),
    ("python", include_str!("../../../recipes/python.toml")),
    ("database", include_str!("../../../recipes/database.toml")),
];

/// What goes into an image, as its TOML file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The image's name: `[a-z0-9][a-z0-9-]{0,30}`.
    pub name: String,
    /// Debian suites in order of preference.
    pub suites: Vec<String>,
    /// Packages to install with what they depend on.
    pub packages: Vec<String>,
    /// Packages to leave out although something depends on them; `*` matches.
    #[serde(default)]
    pub without: Vec<String>,
    /// Whether every busybox applet gets its link.
    #[serde(default)]
    pub busybox_links: bool,
    /// Whether Python's library is compiled beforehand.
    #[serde(default)]
    pub compile_python: bool,
}

fn is_word(text: &str, extra: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || extra.contains(c))
}

/// Whether `name` can name an image: it becomes a directory's name.
pub(crate) fn is_image_name(name: &str) -> bool {
    name.len() <= 31 && is_word(name, "-")
}

impl Recipe {
    /// Reads a recipe from TOML text; `origin` is named in errors.
    ///
    /// # Errors
    /// [`BuildError::Recipe`] says what is wrong.
    pub fn parse(origin: &str, text: &str) -> Result<Self, BuildError> {
        let refuse = |reason: String| BuildError::Recipe { name: origin.to_owned(), reason };
        let recipe: Self = toml::from_str(text).map_err(|error| refuse(error.to_string()))?;
        if !is_image_name(&recipe.name) {
            return Err(refuse(format!(
                "name {:?} must be 1 to 31 of a-z, 0-9 and -, not beginning with -",
                recipe.name
            )));
        }
        if recipe.suites.is_empty() || recipe.packages.is_empty() {
            return Err(refuse("suites and packages must each name at least one".to_owned()));
        }
        for suite in &recipe.suites {
            if !is_word(suite, "-.") {
                return Err(refuse(format!("{suite:?} is not a suite's name")));
            }
        }
        for package in &recipe.packages {
            if !is_word(package, "+-.") {
                return Err(refuse(format!("{package:?} is not a package's name")));
            }
        }
        Ok(recipe)
    }

    /// The recipe compiled in under `name`, or the file at that path when it
    /// holds a `/` or ends in `.toml`.
    ///
    /// # Errors
    /// [`BuildError::Recipe`] when there is none or it is malformed.
    pub fn find(name: &str) -> Result<Self, BuildError> {
        if name.contains('/') || name.ends_with(".toml") {
            let text = std::fs::read_to_string(Path::new(name)).map_err(|error| {
                BuildError::Recipe { name: name.to_owned(), reason: error.to_string() }
            })?;
            return Self::parse(name, &text);
        }
        match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((known, text)) => Self::parse(known, text),
            None => Err(BuildError::Recipe {
                name: name.to_owned(),
                reason: format!(
                    "no such recipe; there are {}, or give the path of a .toml file",
                    Self::built_in().collect::<Vec<_>>().join(" and ")
                ),
            }),
        }
    }

    /// The names of the recipes compiled in.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for anything.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len()).any(|at| tail.get(at..).is_some_and(|end| matches(rest, end)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_recipe_is_sound_and_bears_its_own_name() {
        for name in Recipe::built_in() {
            assert_eq!(Recipe::find(name).unwrap().name, name);
        }
    }

    #[test]
    fn a_bad_recipe_is_refused_with_its_reason() {
        let with = |name: &str, packages: &str, more: &str| {
            let text =
                format!("name = {name:?}\nsuites = [\"trixie\"]\npackages = [{packages}]\n{more}");
            Recipe::parse("r", &text).unwrap_err().to_string()
        };
        assert!(with("../up", "\"a\"", "").contains("../up"));
        assert!(with("a", "", "").contains("at least one"));
        assert!(with("a", "\"-o=x\"", "").contains("-o=x"));
        assert!(with("a", "\"a\"", "colour = 1").contains("colour"));
        assert!(Recipe::find("nope").unwrap_err().to_string().contains("minimal and python"));
    }

    #[test]
    fn a_star_matches_anything_and_nothing() {
        assert!(matches("gcc-*-base", "gcc-14-base"));
        assert!(matches("a*", "a"));
        assert!(!matches("gcc-*", "gcc"));
        assert!(!matches("libc6", "libc6-dev"));
    }
}
