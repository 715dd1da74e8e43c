//! A session opens only when a valid credential reached the server, and only for the user it names.

use super::{Complaints, Evidence};

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    evidence
        .readings
        .iter()
        .filter(|reading| !reading.is_welcomed_as_itself())
        .filter_map(|reading| {
            let welcome = reading.welcome.as_ref()?;
            Some(match reading.user {
                None => {
                    ("nobody".to_owned(), format!("a session was opened as {welcome:?} without a valid credential"))
                }
                Some(user) => ("foreign".to_owned(), format!("a session was opened as {welcome:?} for {user:?}")),
            })
        })
        .collect()
}
