//! Files that people write, read as TOML with strict keys. An error names the file, the line and what to write
//! instead. What a file means is its readers' business; they tell what is wrong with a part by its place.

use std::{
    fmt, fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use toml::Spanned;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: cannot be read: {why}; {hint}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        why: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A line is not what it should be.
    #[error("{}, line {line}: {problem}", file.display())]
    Line {
        /// Which file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong there, and the fix.
        problem: String,
    },
}

/// What is wrong with a part of a file, and which bytes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which bytes; an empty range at 0 where the whole file is meant.
    pub span: Range<usize>,
    /// What is wrong, and the fix.
    pub text: String,
}

impl Problem {
    /// With the value that was read there.
    pub fn at<T>(value: &Spanned<T>, text: impl fmt::Display) -> Self {
        Problem { span: value.span(), text: text.to_string() }
    }

    /// With the file as a whole: something is not in it.
    pub fn whole(text: impl fmt::Display) -> Self {
        Problem { span: 0..0, text: text.to_string() }
    }

    /// With the name and line of the file that has this text.
    pub fn in_file(self, file: &Path, text: &str) -> FileError {
        FileError::Line { file: file.to_owned(), line: line_at(text, self.span.start), problem: self.text }
    }
}

/// The text of a file; `hint` says what to do if it cannot be read.
pub fn text_of(file: &Path, hint: &'static str) -> Result<String, FileError> {
    fs::read_to_string(file).map_err(|why| FileError::Read { file: file.to_owned(), why, hint })
}

/// Reads TOML.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    toml::from_str(text)
        .map_err(|error| Problem { span: error.span().unwrap_or(0..0), text: sentence(&error) })
}

/// One line, with what to do where the library does not say it.
fn sentence(error: &toml::de::Error) -> String {
    let text = error.message().replace('\n', "; ");
    if text.starts_with("missing field") {
        return format!("{text}; add it to this table");
    }
    text
}

fn line_at(text: &str, byte: usize) -> usize {
    let before = text.get(..byte).unwrap_or(text);
    before.matches('\n').count() + 1
}
