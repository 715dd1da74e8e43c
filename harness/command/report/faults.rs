//! Every kind of fault: the place where it acts, its settings, and its effect.

use std::fmt::Write as _;

use anstyle::Style;
use comfy_table::ColumnConstraint;
use relapse_core::fault::{FaultKind, Kind, Place};

use super::table::plain_table;

const BOLD: Style = Style::new().bold();

/// The kinds by place, at most this many characters wide.
pub fn render(width: usize) -> String {
    let mut text = String::new();
    for place in Place::ALL {
        let mut table = plain_table(width.saturating_sub(2));
        for kind in FaultKind::all().filter(|kind| kind.place == place) {
            table.add_row([kind.name.to_owned(), settings(kind), kind.does.trim().to_owned()]);
        }
        for column in table.column_iter_mut().take(1) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        let _ = writeln!(text, "{BOLD}at = \"{}\"{BOLD:#}", place.name());
        for line in table.lines().filter(|line| !line.trim().is_empty()) {
            let _ = writeln!(text, " {}", line.trim_end());
        }
        text.push('\n');
    }
    text
}

/// The keys that say what a kind acts on, and those of its own.
fn settings(kind: &Kind) -> String {
    FaultKind::selecting_keys(kind.name).iter().chain(kind.keys).copied().collect::<Vec<_>>().join(" ")
}
