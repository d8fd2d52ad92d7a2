//! Which namespaces and keys are allowed: the same rules at the edge and in apply.

use std::fmt;

/// Longest namespace, in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 1024;
/// Longest segment of a namespace, in bytes.
pub const SEGMENT_BYTES_MAX: usize = 255;
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// A name that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {reason}")]
pub struct NameError {
    /// `namespace` or `key`.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: NameFault,
}

/// What is wrong with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameFault {
    /// It is empty.
    Empty,
    /// It is too long.
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A segment is too long.
    SegmentTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A segment is empty: a `/` at an end, or two together.
    EmptySegment,
    /// A segment is `.` or `..`.
    DotSegment,
    /// It holds a control character.
    Control,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::TooLong { limit } => write!(f, "has more than {limit} bytes"),
            Self::SegmentTooLong { limit } => write!(f, "has a segment of more than {limit} bytes"),
            Self::EmptySegment => f.write_str("has an empty segment"),
            Self::DotSegment => f.write_str("has a segment \".\" or \"..\""),
            Self::Control => f.write_str("has a control character"),
        }
    }
}

/// Whether `path` may be a namespace: segments of 1 to 255 bytes with `/` between, 1024 bytes in all, no control
/// characters, no `.` or `..`.
///
/// # Errors
/// [`NameError`] with what is wrong.
pub fn check_namespace(path: &str) -> Result<(), NameError> {
    let fault = |reason| {
        Err(NameError {
            what: "namespace",
            reason,
        })
    };
    if path.is_empty() {
        return fault(NameFault::Empty);
    }
    if path.len() > NAMESPACE_BYTES_MAX {
        return fault(NameFault::TooLong {
            limit: NAMESPACE_BYTES_MAX,
        });
    }
    if path.chars().any(char::is_control) {
        return fault(NameFault::Control);
    }
    for segment in path.split('/') {
        match segment {
            "" => return fault(NameFault::EmptySegment),
            "." | ".." => return fault(NameFault::DotSegment),
            _ if segment.len() > SEGMENT_BYTES_MAX => {
                return fault(NameFault::SegmentTooLong {
                    limit: SEGMENT_BYTES_MAX,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether `key` may be a key: 1 to 1024 bytes, no control characters; `/` is allowed.
///
/// # Errors
/// [`NameError`] with what is wrong.
pub fn check_key(key: &str) -> Result<(), NameError> {
    let fault = |reason| {
        Err(NameError {
            what: "key",
            reason,
        })
    };
    if key.is_empty() {
        return fault(NameFault::Empty);
    }
    if key.len() > KEY_BYTES_MAX {
        return fault(NameFault::TooLong {
            limit: KEY_BYTES_MAX,
        });
    }
    if key.chars().any(char::is_control) {
        return fault(NameFault::Control);
    }
    Ok(())
}

/// The namespace above: none above a first segment.
pub fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

/// The first segment: all namespaces that share it live in one group.
pub fn first_segment(path: &str) -> &str {
    path.split_once('/').map_or(path, |(first, _)| first)
}
