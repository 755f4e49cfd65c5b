//! Columns, sizes and times as people read them.

use std::time::Duration;

/// Lines of cells, each column as wide as its widest cell; columns named in `right` end at one edge.
pub fn table(head: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (n, (width, cell)) in widths.iter().zip(row).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            if n > 0 {
                line.push_str("  ");
            }
            if right.contains(&n) {
                line.push_str(&pad);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&pad);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `name: value` lines with the values below one another.
pub fn facts(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    lines.iter().map(|(name, value)| format!("{:<width$}{value}\n", format!("{name}:"))).collect()
}

/// Bytes in binary units.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        _ => indicatif::BinaryBytes(bytes).to_string(),
    }
}

/// A span in whole seconds, largest units first.
pub fn span(span: Duration) -> String {
    humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
}

/// The first digits of an id or digest, enough to tell a few apart.
pub fn short(id: &str) -> String {
    match id.split_once(':') {
        Some((algorithm, hex)) => format!("{algorithm}:{}", hex.chars().take(12).collect::<String>()),
        None => id.chars().take(10).collect(),
    }
}

/// The value, or a dash.
pub fn or_dash(value: Option<&str>) -> String {
    value.filter(|value| !value.is_empty()).unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "100".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &[1], &rows), "NAME    N\na       1\nlong  100\n");
        assert_eq!(facts(&[("a", "1".into()), ("long", "2".into())]), "a:    1\nlong: 2\n");
    }

    #[test]
    fn units() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024 * 1024), "1.00 MiB");
        assert_eq!(span(Duration::from_millis(61_900)), "1m 1s");
        assert_eq!(short("sha256:0123456789abcdef"), "sha256:0123456789ab");
        assert_eq!(short("0123456789abcdef"), "0123456789");
    }
}
