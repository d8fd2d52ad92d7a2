//! I20: a setting that is unknown or wrong is refused at start, all of them at once, each with what was
//! expected; and what is given is what is in force.

mod common;
mod no_panic;
mod readme;
mod refusal;
mod tls;
mod values;
