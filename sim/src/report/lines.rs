//! Reads a file of measurements line by line, so that its size does not matter.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use super::ReportError;
use crate::measure::Measurement;

/// Bytes of a line. The longest is that of a run, with the names of its sites.
const LINE_MAX: u64 = 16 << 20;

/// Hands on each measurement of a file. Empty lines are passed over.
pub fn each(
    path: &Path,
    mut take: impl FnMut(Measurement) -> Result<(), ReportError>,
) -> Result<(), ReportError> {
    let read = |source| ReportError::Read { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(read)?);
    let mut line = vec![];
    for number in 1_u64.. {
        line.clear();
        let length = file.by_ref().take(LINE_MAX + 1).read_until(b'\n', &mut line).map_err(read)?;
        if length == 0 {
            break;
        }
        if length as u64 > LINE_MAX {
            return Err(ReportError::Long { path: path.to_owned(), line: number, most: LINE_MAX });
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let measurement = serde_json::from_slice(&line).map_err(|source| ReportError::Line {
            path: path.to_owned(),
            line: number,
            source,
        })?;
        take(measurement)?;
    }
    Ok(())
}
