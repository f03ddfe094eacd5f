//! How things are printed: sizes, ages, tables, JSON, the log.

use std::io::Write as _;

use serde::Serialize;

/// `12.3 MB`: decimal units, as registries and disks are sold.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `3 hours` since a time in seconds since 1970.
pub(super) fn age(since: u64) -> String {
    let now = coracle_image_store::store::record::now();
    let seconds = now.saturating_sub(since);
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86400 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// Prints rows below a header, columns as wide as they must be.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = header.iter().map(|title| title.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        print_line(padded.join("   ").trim_end());
    };
    line(&header.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
}

/// Prints a value as JSON.
pub(super) fn json(value: &impl Serialize) {
    print_line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// A line on standard output; that nobody reads any more (`| head`) is no failure.
pub(super) fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Sends the library's remarks to standard error.
pub(super) fn log(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::ERROR,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .without_time()
        .try_init();
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (12_345_678, "12.3 MB")]
        {
            assert_eq!(super::size(bytes), text);
        }
    }
}
