//! The limits of the processes that we start: they cannot signal us, and a run has the same addresses as the one before.
//!
//! An app runs in a Landlock domain that scopes signals (Linux 6.12 and newer, ABI 6): it and all that it starts can signal one
//! another, and neither the command, nor its guard, nor anything else of the user's. Setuid programs have no effect in it.
//! Where the kernel has no such domain, the shim refuses `os.kill` and its like for our processes, groups and session; code
//! in C, and programs that the app starts, are not held by that.
//!
//! The domain, and the layout of addresses, belong to the thread that starts a process. So one thread, which lives as long as
//! this process, starts all apps. It also keeps the parent-death signal of interpreters from firing early: that signal comes
//! when the thread ends that started them.

use std::io;
use std::process::{Child, Command};

/// How a process is kept from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// Not at all: it is a command of the user's, or a tool that installs packages.
    None,
    /// It cannot signal us.
    App,
    /// The same, and its memory has the same addresses in each run, where the system lets it have that; seccomp in a
    /// container may not. Numbers and orders that come of addresses are then the same too.
    LockstepApp,
}

/// Starts a process.
#[cfg(target_os = "linux")]
pub(super) fn spawn(command: &mut Command, confinement: Confinement) -> io::Result<Child> {
    match confinement {
        Confinement::None => command.spawn(),
        Confinement::App => linux::spawn(command, linux::Layout::Random),
        Confinement::LockstepApp => linux::spawn(command, linux::Layout::Fixed),
    }
}

/// Other systems have neither.
#[cfg(not(target_os = "linux"))]
pub(super) fn spawn(command: &mut Command, _: Confinement) -> io::Result<Child> {
    command.spawn()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::process::{Child, Command};
    use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
    use std::sync::{Mutex, OnceLock, PoisonError};

    use landlock::{CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError, Scope};
    use nix::sys::personality::{self, Persona};
    use nix::sys::signal::{SigSet, Signal};
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// How the memory of a process is laid out.
    #[derive(Debug, Clone, Copy)]
    pub(super) enum Layout {
        /// As the system does it, which is at random.
        Random,
        /// The same each time: `ADDR_NO_RANDOMIZE` of personality(2).
        Fixed,
    }

    /// A process to be started.
    struct SpawnOrder {
        command: Command,
        layout: Layout,
        /// The cores of the thread that wants it, which its own thread would have handed down.
        cores: Option<CpuSet>,
        answer: SyncSender<(Command, io::Result<Child>)>,
    }

    /// Starts a process from the thread that starts all apps.
    pub(super) fn spawn(command: &mut Command, layout: Layout) -> io::Result<Child> {
        static SPAWNER: OnceLock<Mutex<Sender<SpawnOrder>>> = OnceLock::new();
        let spawner = SPAWNER.get_or_init(|| {
            let (sender, orders) = channel();
            std::thread::spawn(move || spawn_all(&orders));
            Mutex::new(sender)
        });
        let (answer, answered) = sync_channel(1);
        let order = SpawnOrder {
            command: std::mem::replace(command, Command::new("")),
            layout,
            cores: sched_getaffinity(None).ok(),
            answer,
        };
        spawner.lock().unwrap_or_else(PoisonError::into_inner).send(order).map_err(|_| gone())?;
        let (own, child) = answered.recv().map_err(|_| gone())?;
        *command = own;
        child
    }

    /// The thread lives as long as the process, so that nothing sees this.
    fn gone() -> io::Error {
        io::Error::other("the thread that starts processes has ended")
    }

    /// Starts what is ordered, in a domain from which no signal leaves.
    fn spawn_all(orders: &Receiver<SpawnOrder>) {
        // An older kernel has none; the shim refuses signals there.
        let _ = scope_signals();
        let usual = personality::get().ok();
        // Processes inherit the mask of this thread, and the command may hold this signal back.
        let mut ours = SigSet::empty();
        ours.add(Signal::SIGTTOU);
        let _ = ours.thread_unblock();
        for SpawnOrder { mut command, layout, cores, answer } in orders {
            if let Some(cores) = cores {
                let _ = sched_setaffinity(None, &cores);
            }
            if let Some(usual) = usual {
                let _ = personality::set(match layout {
                    Layout::Random => usual,
                    Layout::Fixed => usual | Persona::ADDR_NO_RANDOMIZE,
                });
            }
            let child = command.spawn();
            let _ = answer.send((command, child));
        }
    }

    /// Keeps this thread, and what it starts, from signalling anything that was not started from it.
    fn scope_signals() -> Result<(), RulesetError> {
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        ruleset.scope(Scope::Signal)?.create()?.restrict_self().map(drop)
    }
}
