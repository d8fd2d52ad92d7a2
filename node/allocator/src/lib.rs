//! The allocator of a node: mimalloc, told to give memory back at once.
//!
//! A node that snapshots or restores makes and frees buffers of megabytes on one thread after the other. What is free goes back to the system
//! after a delay, which mimalloc 3 has raised to a second; of 2 GB that pass through in half a minute, that second is much of the node's peak
//! (I6). Without the delay a node that is written to as fast as it can takes about 7 % fewer writes; with 10 ms it cost as much and kept more.
//!
//! The option is set by [`give_back_at_once`], which `main` calls first.

use std::ffi::{c_int, c_long};

/// Milliseconds until free memory goes back.
const PURGE_DELAY_MS: c_long = 0;
/// `mi_option_purge_delay` of `mimalloc.h`, for which the crate has no name.
const PURGE_DELAY: c_int = 15;
/// What mimalloc 3 begins with: by it the option is known to be the one that is meant.
const PURGE_DELAY_MS_BEFORE: c_long = 1000;

const _: () = assert!(
    libmimalloc_sys::_mi_option_last == 47,
    "this mimalloc has other options: look for mi_option_purge_delay in its mimalloc.h"
);

pub use mimalloc::MiMalloc;

/// Lets free memory go back to the system at once. Says whether that is so now: not where `MIMALLOC_PURGE_DELAY` in the environment has set
/// anything but the default, nor with a mimalloc that begins with another one, which is then left as it is.
///
/// To be called first in `main`, while there is one thread: see below.
#[must_use]
pub fn give_back_at_once() -> bool {
    // SAFETY: both take plain numbers and touch nothing but mimalloc's table of options; a number beyond its end is refused there. They are
    // documented as not thread safe because an entry of that table is a plain word, which whoever frees memory reads. That `main` has made no
    // thread yet is up to it; a thread that frees while the word is written finds one value or the other where words are written whole, and
    // gives back at once or later. The word is written once, since it is no more what it was before after that.
    unsafe {
        if libmimalloc_sys::mi_option_get(PURGE_DELAY) == PURGE_DELAY_MS_BEFORE {
            libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS);
        }
        libmimalloc_sys::mi_option_get(PURGE_DELAY) == PURGE_DELAY_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails with a mimalloc that has moved its options: then look into its `mimalloc.h`.
    #[test]
    fn i6_what_is_free_goes_back_at_once() {
        assert!(give_back_at_once());
    }
}
