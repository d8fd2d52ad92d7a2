//! What goes to stdout: one JSON document, or something for people.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::escape;
use crate::failure::{Failure, stdout_failed};

/// A table without borders, as wide as the terminal when there is one.
pub fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

/// One line, escaped.
pub fn line(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{}", escape::text(text)).map_err(|e| stdout_failed(&e))
}

/// Text for a person, or a document: a reader that closed its end early has all that it wanted.
pub fn say(text: impl std::fmt::Display) {
    if let Err(error) = writeln!(io::stdout().lock(), "{text}")
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("error: write to standard output: {error}");
    }
}

/// A table of cells that are escaped already.
pub fn print_table(table: &Table) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for row in table.lines() {
        writeln!(out, "{}", row.trim_end()).map_err(|e| stdout_failed(&e))?;
    }
    Ok(())
}

/// Whether this process has begun to write its document.
static DOCUMENT_BEGUN: AtomicBool = AtomicBool::new(false);

/// Whether the one document of this command is on stdout, or a part of it: then a failure is told on stderr alone.
pub(crate) fn is_document_begun() -> bool {
    DOCUMENT_BEGUN.load(Ordering::Relaxed)
}

/// The one JSON document of a command.
pub fn json(document: &impl Serialize) -> Result<(), Failure> {
    DOCUMENT_BEGUN.store(true, Ordering::Relaxed);
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, document)
        .map_err(io::Error::from)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .map_err(|e| stdout_failed(&e))
}

/// A list as one JSON document, written as its items come, so that memory does not grow with it.
#[derive(Debug)]
pub struct JsonList {
    out: io::BufWriter<io::Stdout>,
    written: u64,
}

impl Default for JsonList {
    fn default() -> Self {
        Self::new()
    }
}

impl JsonList {
    /// A list of which nothing is written yet: what fails before the first item is a document of its own.
    pub fn new() -> Self {
        Self {
            out: io::BufWriter::new(io::stdout()),
            written: 0,
        }
    }

    fn head(&mut self) -> io::Result<()> {
        DOCUMENT_BEGUN.store(true, Ordering::Relaxed);
        self.out.write_all(b"{\"items\":[")
    }

    /// Writes one item.
    pub fn push(&mut self, item: &impl Serialize) -> Result<(), Failure> {
        let separator: &[u8] = if self.written == 0 { b"\n" } else { b",\n" };
        let head = match self.written {
            0 => self.head(),
            _ => Ok(()),
        };
        self.written += 1;
        head.and_then(|()| self.out.write_all(separator))
            .and_then(|()| serde_json::to_writer(&mut self.out, item).map_err(io::Error::from))
            .map_err(|e| stdout_failed(&e))
    }

    /// Writes the end, with the cursor of what follows.
    pub fn end(mut self, next_cursor: Option<&str>) -> Result<(), Failure> {
        let head = match self.written {
            0 => self.head(),
            _ => Ok(()),
        };
        head.and_then(|()| self.out.write_all(b"\n],\"nextCursor\":"))
            .and_then(|()| {
                serde_json::to_writer(&mut self.out, &next_cursor).map_err(io::Error::from)
            })
            .and_then(|()| self.out.write_all(b"}\n"))
            .and_then(|()| self.out.flush())
            .map_err(|e| stdout_failed(&e))
    }
}

/// Bytes as people read them.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scaled = count as f64;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{scaled:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }
}
