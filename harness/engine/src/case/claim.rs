//! The claim of a case: the symptom that the version with the bug shows.

use std::fmt;
use std::str::FromStr;

use relapse_core::{
    asgi::exception::{CodePlace, Exception},
    judge::{
        cause::Cause,
        outcome::{Class, OutcomePattern},
    },
};

/// The report, as far as the case states it. Everything that it states must show before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Symptom {
    /// The outcome's class.
    pub class: Option<Class>,
    /// The outcome, such as `http 500`.
    pub outcome: Option<OutcomePattern>,
    /// The cause.
    pub cause: Option<Cause>,
    /// The exception that the app raises.
    pub exception: Option<ExceptionClaim>,
    /// Text in the log.
    pub log: Option<String>,
    /// Text in the close reason.
    pub reason: Option<String>,
    /// Checks with a finding.
    pub found_by: Vec<String>,
}

/// An exception as a report names it: `KeyError: 'room'`, with as much of its type, text and place as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExceptionClaim {
    /// The type's name; a module before it is ignored.
    pub type_name: String,
    /// Text within the message.
    pub text: Option<String>,
    /// Where it is raised.
    pub place: Option<PlaceClaim>,
}

/// A place in an app's code as a report names it: `service.py`, `service.py:8`, `service.py:8 in chat`, `in chat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceClaim {
    /// The end of the file's path.
    pub file: Option<String>,
    /// The line, counted from 1.
    pub line: Option<u32>,
    /// The function.
    pub function: Option<String>,
}

impl ExceptionClaim {
    /// Whether an exception is the claimed one.
    pub fn fits(&self, exception: &Exception) -> bool {
        bare(&self.type_name) == bare(&exception.type_name)
            && self.text.as_ref().is_none_or(|text| exception.message.contains(text))
            && self.place.as_ref().is_none_or(|claim| exception.place.as_ref().is_some_and(|place| claim.fits(place)))
    }
}

/// A type's name without its module.
fn bare(type_name: &str) -> &str {
    type_name.rsplit('.').next().unwrap_or(type_name)
}

impl FromStr for ExceptionClaim {
    type Err = &'static str;

    /// Reads `Type` or `Type: text`.
    fn from_str(written: &str) -> Result<ExceptionClaim, Self::Err> {
        let (type_name, text) = match written.split_once(": ") {
            Some((type_name, text)) => (type_name, Some(text.to_owned())),
            None => (written, None),
        };
        if !type_name.split('.').all(is_identifier) {
            return Err("an exception is written as in `KeyError` or `KeyError: 'room'`");
        }
        Ok(ExceptionClaim { type_name: type_name.to_owned(), text, place: None })
    }
}

/// Whether a text is a name in Python.
fn is_identifier(text: &str) -> bool {
    text.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && text.chars().all(|character| character.is_alphanumeric() || character == '_')
}

impl fmt::Display for ExceptionClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.type_name)?;
        self.text.as_ref().map_or(Ok(()), |text| write!(f, ": {text}"))?;
        self.place.as_ref().map_or(Ok(()), |place| write!(f, " ({place})"))
    }
}

impl PlaceClaim {
    /// Whether a place is the claimed one.
    pub fn fits(&self, place: &CodePlace) -> bool {
        let is_file = self.file.as_ref().is_none_or(|file| {
            place.file == *file || place.file.strip_suffix(file.as_str()).is_some_and(|rest| rest.ends_with('/'))
        });
        is_file
            && self.line.is_none_or(|line| line == place.line)
            && self.function.as_ref().is_none_or(|function| *function == place.function)
    }
}

impl FromStr for PlaceClaim {
    type Err = &'static str;

    fn from_str(written: &str) -> Result<PlaceClaim, Self::Err> {
        const WRITE_IT: &str = "a place is written as in `service.py`, `service.py:8` or `service.py:8 in chat`";
        let written = written.trim();
        let (place, function) = match written.strip_prefix("in ") {
            Some(function) => ("", Some(function.trim())),
            None => {
                written.split_once(" in ").map_or((written, None), |(place, name)| (place.trim(), Some(name.trim())))
            }
        };
        let (file, line) = match place.rsplit_once(':') {
            Some((file, line)) => (file, Some(line.parse().map_err(|_| WRITE_IT)?)),
            None => (place, None),
        };
        let file = Some(file).filter(|file| !file.is_empty()).map(str::to_owned);
        let is_named = file.is_some() || (line.is_none() && function.is_some());
        if !is_named || written.ends_with(" in") || function.is_some_and(str::is_empty) {
            return Err(WRITE_IT);
        }
        Ok(PlaceClaim { file, line, function: function.map(str::to_owned) })
    }
}

impl fmt::Display for PlaceClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.as_ref().map_or(Ok(()), |file| f.write_str(file))?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))?;
        let space = if self.file.is_some() { " " } else { "" };
        self.function.as_ref().map_or(Ok(()), |function| write!(f, "{space}in {function}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{ExceptionClaim, PlaceClaim};
    use relapse_core::asgi::exception::{CodePlace, Exception};

    fn raised() -> Exception {
        let place = CodePlace { file: "app/rooms.py".to_owned(), line: 8, function: "chat".to_owned() };
        Exception { place: Some(place), ..Exception::new("KeyError", "'room'") }
    }

    #[test]
    fn a_claim_fits_as_far_as_it_goes() {
        for (written, fits) in [
            ("KeyError", true),
            ("builtins.KeyError", true),
            ("KeyError: room", true),
            ("KeyError: table", false),
            ("LookupError", false),
        ] {
            let claim: ExceptionClaim = written.parse().unwrap();
            assert_eq!(claim.fits(&raised()), fits, "{written}");
            assert_eq!(claim.to_string(), written);
        }
        assert!("no exception".parse::<ExceptionClaim>().is_err() && "".parse::<ExceptionClaim>().is_err());
    }

    #[test]
    fn a_place_fits_as_far_as_it_goes() {
        for (written, fits) in [
            ("rooms.py", true),
            ("app/rooms.py:8", true),
            ("rooms.py:8 in chat", true),
            ("rooms.py in chat", true),
            ("in chat", true),
            ("ooms.py", false),
            ("rooms.py:9", false),
            ("in leave", false),
        ] {
            let place: PlaceClaim = written.parse().unwrap();
            let claim = ExceptionClaim { place: Some(place.clone()), ..("KeyError".parse().unwrap()) };
            assert_eq!(claim.fits(&raised()), fits, "{written}");
            assert_eq!(place.to_string(), written);
            let unplaced = Exception { place: None, ..raised() };
            assert!(!claim.fits(&unplaced), "a place that is not seen is not shown");
        }
        for written in ["", "rooms.py:x", ":8", "rooms.py in "] {
            assert!(written.parse::<PlaceClaim>().is_err(), "{written}");
        }
    }
}
