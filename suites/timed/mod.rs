//! Commands and servers, measured from outside: one test at a time.

mod asked; // commands on apps, files and signals
mod clients; // clients that never do what a client should
mod hunts; // hunts that a time ends
mod modes; // the list of everything hostile, by name
mod peer; // servers that never do what a server should
mod servers_real; // the servers themselves, held against their profiles
mod watched; // the built command, looked at from outside

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lets one test of this binary run at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
