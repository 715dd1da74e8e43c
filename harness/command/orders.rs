//! The orders that a standing proxy takes on its terminal, one a line.

use std::io::BufRead;

use relapse::{discover::read_edge_fault, proxy::ProxyHandle};
use relapse_core::error::did_you_mean;
use tokio::sync::mpsc;

use super::{
    error::UsageError,
    output::{complain_about, complain_of, print},
};

/// The orders, each with what it does.
const ORDERS: [(&str, &str); 6] = [
    ("list", "the faults, and how often each acted"),
    ("add FAULT", "another fault for connections to come, as --fault takes it"),
    ("remove N", "no such fault any more"),
    ("pause", "no fault acts"),
    ("resume", "they act again"),
    ("help", "this list"),
];

/// Every line of standard input. A terminal that closes, or none at all, gives no orders.
pub(super) fn lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    // Nothing but a thread of its own waits for a terminal without keeping the others waiting.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.map_or(true, |line| sender.send(line).is_err()) {
                return;
            }
        }
    });
    receiver
}

/// Does what a line says; complains where it says nothing.
pub(super) fn obey(line: &str, desk: &ProxyHandle) {
    let (order, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    match order {
        "" => {}
        "list" => {
            for fault in desk.faults().iter().filter(|fault| fault.armed) {
                print(format!("  fault {}: {} ({} times)", fault.number, fault.fault, fault.acted));
            }
            print(if desk.is_paused() { "  paused" } else { "  acting" });
        }
        "add" => match read_edge_fault(rest.trim()) {
            Ok(fault) => print(format!("  fault {}: {fault}", desk.add(fault.clone()))),
            Err(error) => complain_about(&error),
        },
        "remove" => match rest.trim().parse() {
            Ok(number) if desk.faults().iter().any(|fault| fault.number == number && fault.armed) => {
                desk.remove(number);
                print(format!("  fault {number} is gone"));
            }
            _ => complain_of(&UsageError::NoSuchFault { number: rest.trim().to_owned() }),
        },
        "pause" => {
            desk.pause();
            print("  paused");
        }
        "resume" => {
            desk.resume();
            print("  acting");
        }
        "help" => ORDERS.iter().for_each(|(order, what)| print(format!("  {order:<10} {what}"))),
        unknown => {
            let names = ORDERS.iter().map(|(order, _)| order.split(' ').next().unwrap_or_default());
            let help = did_you_mean(unknown, names).unwrap_or_else(|| "`help` lists the orders".to_owned());
            complain_of(&UsageError::NoSuchOrder { order: unknown.to_owned(), help });
        }
    }
}
