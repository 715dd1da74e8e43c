//! Hostile apps, peers, files and users, against the built command.

mod bounds; // nothing that talks without end makes it grow
mod peer; // servers that never do what a server should
mod watched; // the built command, looked at from outside
