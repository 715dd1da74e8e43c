//! The messages that a client reads in a session: their types, the welcome, and the user that they are for.

use std::borrow::Cow;

use memchr::memmem::Finder;
use serde::Deserialize;

use crate::{
    record::{
        service::MessageNames,
        transcript::{Event, EventKind},
    },
    wire::{
        frame::{Frame, Opcode},
        message::message_type,
    },
};

/// The messages that a client read.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// The `type` of each text message; empty where it has none.
    pub(super) messages: Vec<String>,
    /// The `user_id` of the welcome.
    pub(super) welcome: Option<String>,
}

impl Talk {
    pub(super) fn take(&mut self, frame: &Frame, words: &MessageNames) {
        let name = message_type(&frame.payload).unwrap_or_default();
        if self.welcome.is_none() && words.welcomes.has(name.as_ref()) {
            self.welcome = Some(serde_json::from_slice::<Welcome>(&frame.payload).unwrap_or_default().data.user_id);
        }
        self.messages.push(name.into_owned());
    }

    /// The user that an agent event is for, where that is another one than the session's.
    pub(super) fn foreign_user<'a>(
        &self,
        mut events: impl Iterator<Item = &'a Event>,
        user: Option<&str>,
        words: &MessageNames,
    ) -> Option<String> {
        if !words.name_user || !self.messages.iter().any(|name| words.events.has(name)) {
            return None;
        }
        let user = user.unwrap_or_default();
        let mine = format!("\"user_id\":\"{user}\"");
        let mine = Finder::new(&mine);
        events.find_map(|event| match &event.what {
            EventKind::FrameSeen(frame) if frame.opcode == Opcode::Text && mine.find(&frame.payload).is_none() => {
                addressee(&frame.payload, words).filter(|found| found != user)
            }
            _ => None,
        })
    }
}

/// The user that an agent event is for: empty where it names none, `None` for another message.
fn addressee(payload: &[u8], words: &MessageNames) -> Option<String> {
    #[derive(Deserialize)]
    struct Addressed<'a> {
        #[serde(borrow)]
        user_id: Cow<'a, str>,
    }
    if !words.events.has(message_type(payload)?.as_ref()) {
        return None;
    }
    let addressed = serde_json::from_slice::<Addressed<'_>>(payload).ok();
    Some(addressed.map_or_else(String::new, |event| event.user_id.into_owned()))
}

/// The parts of a welcome that matter here.
#[derive(Default, Deserialize)]
struct Welcome {
    #[serde(default)]
    data: WelcomeData,
}

#[derive(Default, Deserialize)]
struct WelcomeData {
    #[serde(default)]
    user_id: String,
}
