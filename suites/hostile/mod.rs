//! Hostile apps, peers, files and users, against the built command.

mod bounds; // nothing that talks without end makes it grow
mod determinism; // the same seed, the same document
mod life; // signals, time, files and a copied binary
mod peer; // servers that never do what a server should
mod processes; // everything that is started ends with the command
mod watched; // the built command, looked at from outside

/// How many signals each command gets: as many as `RELAPSE_TEST_SIGNALS` says, or so few.
fn signals(few: usize) -> usize {
    std::env::var("RELAPSE_TEST_SIGNALS").ok().and_then(|count| count.parse().ok()).unwrap_or(few)
}
