//! Hostile apps, peers, files and users, against the built command.

mod broken; // a harness that breaks
mod determinism; // the same seed, the same document
mod life; // signals, time, files and a copied binary
mod processes; // everything that is started ends with the command

/// How many signals each command gets: `RELAPSE_TEST_SIGNALS`, or `default` where that is not set. At least one.
fn signals(default: usize) -> usize {
    let Ok(count) = std::env::var("RELAPSE_TEST_SIGNALS") else { return default };
    count.parse().ok().filter(|count| *count > 0).expect("RELAPSE_TEST_SIGNALS is a number above 0")
}
