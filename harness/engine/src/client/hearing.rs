//! The messages that a client has read, and has not waited for yet.

use std::collections::VecDeque;

use relapse_core::{
    client::step::Awaited,
    wire::{
        frame::{Frame, Opcode},
        message::message_type,
    },
};

/// The most messages that are kept; the oldest goes first. Every one of them stands in the transcript.
const MESSAGES_MAX: usize = 1000;

/// The most bytes that are kept, but for one message that is longer: 4 MiB, because a crowd has many clients.
const BYTES_MAX: usize = 4 << 20;

/// Messages in the order in which they came, without those that a wait has passed over.
#[derive(Default)]
pub(super) struct Heard {
    /// Each with its number.
    messages: VecDeque<(usize, Frame)>,
    bytes: usize,
    /// The number of the next message.
    next: usize,
    /// The number of the first message after the last one that the client sent.
    asked: usize,
}

impl Heard {
    /// The client sends a message: what comes from here on may be an answer.
    pub(super) fn asked(&mut self) {
        self.asked = self.next;
    }

    /// Numbers a message that came; whether it is awaited. Another one is left behind.
    pub(super) fn passes(&mut self, frame: &Frame, awaited: &Awaited) -> bool {
        let number = self.number(frame);
        self.is_awaited(number, frame, awaited)
    }

    /// Keeps a message that nothing waits for yet.
    pub(super) fn keep(&mut self, frame: Frame) {
        let number = self.number(&frame);
        if !frame.is_message() {
            return;
        }
        self.bytes += frame.payload.len();
        self.messages.push_back((number, frame));
        while self.messages.len() > MESSAGES_MAX || (self.bytes > BYTES_MAX && self.messages.len() > 1) {
            self.take();
        }
    }

    /// Whether the awaited message came already. Those before it are left behind, as they are while one waits.
    pub(super) fn find(&mut self, awaited: &Awaited) -> bool {
        while let Some((number, frame)) = self.take() {
            if self.is_awaited(number, &frame, awaited) {
                return true;
            }
        }
        false
    }

    fn take(&mut self) -> Option<(usize, Frame)> {
        let taken = self.messages.pop_front();
        self.bytes -= taken.as_ref().map_or(0, |(_, frame)| frame.payload.len());
        taken
    }

    fn number(&mut self, frame: &Frame) -> usize {
        self.next += usize::from(frame.is_message());
        self.next.saturating_sub(1)
    }

    fn is_awaited(&self, number: usize, frame: &Frame, awaited: &Awaited) -> bool {
        match awaited {
            Awaited::Message(name) => {
                text(frame).is_some() && message_type(&frame.payload).is_some_and(|found| found == name.as_str())
            }
            Awaited::Key(key) => text(frame).is_some_and(|text| {
                let parsed = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
                parsed.is_ok_and(|message| message.contains_key(key))
            }),
            Awaited::Text(wanted) => text(frame).is_some_and(|text| text.contains(wanted.as_str())),
            Awaited::Match(pattern) => text(frame).is_some_and(|text| pattern.matches(text)),
            Awaited::Any => frame.is_message(),
            Awaited::Answer => frame.is_message() && number >= self.asked,
            Awaited::Close => false,
        }
    }
}

fn text(frame: &Frame) -> Option<&str> {
    match frame.opcode {
        Opcode::Text => std::str::from_utf8(&frame.payload).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::client::hearing::{BYTES_MAX, Heard, MESSAGES_MAX};
    use relapse_core::{
        client::step::Awaited,
        wire::frame::{Frame, Opcode},
    };

    fn text(text: &str) -> Frame {
        Frame::new(Opcode::Text, text.to_owned())
    }

    #[test]
    fn a_message_is_waited_for_once_and_those_before_it_are_left_behind() {
        let mut heard = Heard::default();
        ["one", "two", "three"].into_iter().for_each(|said| heard.keep(text(said)));
        heard.keep(Frame::new(Opcode::Ping, "four"));
        assert!(heard.find(&Awaited::Text("two".to_owned())));
        assert!(!heard.find(&Awaited::Text("one".to_owned())));
        assert!(!heard.find(&Awaited::Any), "the third one was left behind by the wait that found nothing");
    }

    #[test]
    fn an_answer_comes_after_the_request() {
        let mut heard = Heard::default();
        heard.keep(text("before"));
        heard.asked();
        assert!(!heard.find(&Awaited::Answer));
        heard.asked();
        assert!(!heard.passes(&Frame::new(Opcode::Pong, "x"), &Awaited::Answer));
        assert!(heard.passes(&text("after"), &Awaited::Answer));
        heard.asked();
        heard.keep(text("kept"));
        assert!(heard.find(&Awaited::Answer));
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut heard = Heard::default();
        (0..=MESSAGES_MAX).for_each(|number| heard.keep(text(&format!("{number}."))));
        assert!(!heard.find(&Awaited::Text("0.".to_owned() + "x")), "nothing says that");
        (0..=MESSAGES_MAX).for_each(|number| heard.keep(text(&format!("<{number}>"))));
        assert_eq!(heard.messages.len(), MESSAGES_MAX);
        assert!(!heard.messages.iter().any(|(_, frame)| frame.payload == "<0>"));
        let long = "x".repeat(BYTES_MAX);
        heard.keep(text(&long));
        assert_eq!((heard.messages.len(), heard.bytes), (1, BYTES_MAX));
    }
}
