//! A profile row by row, as its file has it.

use serde::Serialize;

use super::{Both, Effect, LimitRule, Profile, Reception, RefusalAnswer, StopFate};
use relapse_core::asgi::exception::Exception;

/// One row of a profile: its section, its key, and its value as the file has it; nothing where the file leaves it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileRow {
    /// The section.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// The value, in TOML.
    pub value: Option<String>,
}

impl ProfileRow {
    /// Section and key, as in `after_accept.raises`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }
}

/// A value as a profile's file has it.
pub trait ProfileValue {
    /// The value, in TOML; nothing where the file leaves it out.
    fn written(&self) -> Option<String>;
}

impl Profile {
    /// Every row, in the order of the file.
    pub fn rows(&self) -> Vec<ProfileRow> {
        let mut rows = Vec::new();
        macro_rules! rows {
            ($($section:ident { $($key:ident)* })*) => {
                $($(rows.push(ProfileRow {
                    section: stringify!($section),
                    key: stringify!($key),
                    value: self.$section.$key.written(),
                });)*)*
            };
        }
        rows! {
            scope { asgi_version websocket_spec_version http_spec_version denial_response state }
            lifespan { supported spec_version startup_timeout_s }
            handshake {
                upgrade missing_key short_key missing_version wrong_version post http_1_0 connection_keep_alive
                missing_host two_hosts two_keys two_versions unknown_method
            }
            before_accept { raises returns close denial send unknown_event unoffered_subprotocol time_limit_s }
            after_accept {
                raises returns accept_again send_after_close close_codes other_close_code long_close_reason empty_send
                unencodable_text unknown_event close_reason
            }
            disconnect { with_code without_code without_frame after_own_close close_echo send }
            http { raises returns start ends_after_start without_length short_body long_body }
            violation { protocol close_code payload text too_big length refuses application_sees }
            compression {
                accepts server_max_window_bits client_max_window_bits after_final_block deviations
            }
            limits { head line target field fields lines }
            keepalive { ping_interval_ms pong_timeout_ms expired application_sees }
            blocked_loop { order writes }
            shutdown {
                connects pending pending_sees pending_send open open_sees request cancels grace_s
            }
            sequence {
                keeps message_keys reads denial_start after_returns denying denied refused after_refusal refused_connection empty_check accept_headers both_send failed_close gone after_disconnect
                lost_pending lost_refused lost_denied lost_reason close_reason broken_send denial_type closed_send closed_close
                gone_close lost_send lost_close abandoned http_body http_before_start http_after_start http_unknown http_after_end http_after_pieces http_gone http_after_error
                http_short_end http_disconnect http_raises_after_end
                http_unread http_own_answer
            }
        }
        rows
    }

    /// Prints a profile file with these keys at its head, and these rows in the file's order. A row without a measurement
    /// becomes a comment, to be filled in by hand.
    pub fn print(head: &[(&str, toml::Value)], remark: &str, rows: &[(ProfileRow, bool)]) -> String {
        let mut text = format!("# {remark}\n");
        for (key, value) in head {
            text.push_str(&format!("{key} = {value}\n"));
        }
        let mut section = "";
        for (row, is_known) in rows {
            if row.section != section {
                section = row.section;
                text.push_str(&format!("\n[{section}]\n"));
            }
            match (&row.value, is_known) {
                (Some(value), true) => text.push_str(&format!("{} = {value}\n", row.key)),
                (None, true) => {}
                (_, false) => text.push_str(&format!("# {} is not measured\n", row.key)),
            }
        }
        text
    }
}

/// A text on one line, as TOML has it, which has JSON's escapes.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Implements `Written` for types that are a plain TOML value: a text, a number, a boolean, a name, or a list of names.
macro_rules! plain {
    ($($kind:ty)*) => {
        $(impl ProfileValue for $kind {
            fn written(&self) -> Option<String> {
                toml::Value::try_from(self).ok().map(|value| value.to_string())
            }
        })*
    };
}

plain! { bool u16 u64 String super::Denial super::CloseCodes super::CloseReason super::CloseEcho super::Start super::WithoutLength
relapse_core::wire::assembly::TextCheck super::LengthCheck super::Connects Vec<super::Strictness> Vec<super::CompressionDeviation> relapse_core::asgi::event::MessageKeys super::ReadAhead
super::FailedClose super::UnencodableText super::Gone super::AfterDisconnect super::HttpBody super::HttpDisconnect super::Reuse
super::ToldReason super::EmptyCheck super::ShortEnd super::StateTracking super::AfterReturns super::LoopOrder super::LoopWrites }

impl ProfileValue for Option<Effect> {
    fn written(&self) -> Option<String> {
        self.as_ref().and_then(ProfileValue::written)
    }
}

impl ProfileValue for Option<LimitRule> {
    fn written(&self) -> Option<String> {
        let LimitRule { on, most, over } = self.as_ref()?;
        let on = toml::Value::try_from(on).ok()?;
        Some(format!("{{ on = {on}, most = {most}, over = {} }}", over.written()?))
    }
}

impl<T: Serialize> ProfileValue for Option<T> {
    fn written(&self) -> Option<String> {
        self.as_ref().and_then(|value| toml::Value::try_from(value).ok()).map(|value| value.to_string())
    }
}

impl ProfileValue for RefusalAnswer {
    fn written(&self) -> Option<String> {
        Some(match self {
            RefusalAnswer::Http { status, content_type, body } => {
                let mut text = format!("{{ answer = \"http\", status = {status}");
                for (key, value) in [("content_type", content_type), ("body", body)] {
                    if !value.is_empty() {
                        text.push_str(&format!(", {key} = {}", quoted(value)));
                    }
                }
                text + " }"
            }
            RefusalAnswer::Close { code, reason } => {
                let code = code.map_or(String::new(), |code| format!(", code = {}", code.0));
                let reason = if reason.is_empty() { String::new() } else { format!(", reason = {}", quoted(reason)) };
                format!("{{ answer = \"close\"{code}{reason} }}")
            }
            RefusalAnswer::Drop => "{ answer = \"drop\" }".to_owned(),
            RefusalAnswer::Hang => "{ answer = \"hang\" }".to_owned(),
        })
    }
}

impl ProfileValue for Effect {
    fn written(&self) -> Option<String> {
        match self {
            Effect::Raises { exception: Exception { type_name, message, .. }, then } => {
                let then = match then {
                    Some(RefusalAnswer::Drop) => ", then = \"drop\"",
                    Some(RefusalAnswer::Hang) => ", then = \"hang\"",
                    _ => "",
                };
                Some(format!("{{ raises = {}{then} }}", quoted(&format!("{type_name}: {message}"))))
            }
            Effect::Answers(answer) => answer.written(),
            Effect::Ignored => Some("{ answer = \"ignored\" }".to_owned()),
            Effect::Truncated => Some("{ answer = \"truncated\" }".to_owned()),
        }
    }
}

impl ProfileValue for Reception {
    fn written(&self) -> Option<String> {
        match self {
            Reception::Accepted => Some("\"accepted\"".to_owned()),
            Reception::Http => Some("\"http\"".to_owned()),
            Reception::Refused(answer) => answer.written(),
        }
    }
}

impl ProfileValue for Both {
    fn written(&self) -> Option<String> {
        match self {
            Both::Text => Some("\"text\"".to_owned()),
            Both::Bytes => Some("\"bytes\"".to_owned()),
            Both::Suffers(effect) => effect.written(),
        }
    }
}

impl ProfileValue for StopFate {
    fn written(&self) -> Option<String> {
        match self {
            StopFate::GoesOn => Some("\"goes-on\"".to_owned()),
            StopFate::Answers(answer) => answer.written(),
        }
    }
}
