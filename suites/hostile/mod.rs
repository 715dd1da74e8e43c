//! Hostile apps, peers, files and users, against the built command.

mod determinism; // the same seed, the same document
mod processes; // everything that is started ends with the command
