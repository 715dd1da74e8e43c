//! An agent request is answered by its five events, once each and in order, for the user who asked.

use memchr::memmem::Finder;

use super::{Complaints, Evidence};
use crate::{
    classify::{AGENT_EVENTS, Reading},
    frame::Opcode,
    message::message_type,
    transcript::What,
};

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    evidence.readings.iter().filter_map(complain).collect()
}

fn complain(reading: &Reading<'_>) -> Option<(String, String)> {
    let (wanted, seen) = (reading.agent_requests(), reading.agent_runs());
    let events = reading.messages.iter().filter(|name| AGENT_EVENTS.contains(&name.as_ref())).count();
    if seen != wanted || events != wanted * AGENT_EVENTS.len() {
        let message =
            format!("{wanted} agent request(s) were answered by {seen} whole run(s), {events} event(s) in all");
        return Some(("missing".to_owned(), message));
    }
    if events == 0 {
        return None;
    }
    let user = reading.user.unwrap_or_default();
    let mine = format!("\"user_id\":\"{user}\"");
    let mine = Finder::new(&mine);
    let foreign = reading.events.iter().find_map(|event| match &event.what {
        What::FrameSeen(frame) if frame.opcode == Opcode::Text && mine.find(&frame.payload).is_none() => {
            foreign_user(&frame.payload, user)
        }
        _ => None,
    })?;
    Some(("foreign".to_owned(), format!("an event carries the foreign user {foreign:?}")))
}

/// The user an agent event is for, when that is another one.
fn foreign_user(payload: &[u8], user: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Addressed<'a> {
        #[serde(borrow)]
        user_id: std::borrow::Cow<'a, str>,
    }
    if !AGENT_EVENTS.contains(&message_type(payload)?.as_ref()) {
        return None;
    }
    let addressed = serde_json::from_slice::<Addressed<'_>>(payload).ok();
    let found = addressed.map_or_else(String::new, |event| event.user_id.into_owned());
    (found != user).then_some(found)
}
