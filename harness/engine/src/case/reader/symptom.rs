//! Reads what a case claims: outcomes, the symptom, and claimed fixes.

use std::collections::BTreeMap;

use relapse_core::{
    error::{Error, did_you_mean},
    judge::outcome::{Class, Ending, OutcomePattern},
};
use toml::Spanned;

use super::CaseReader;
use crate::{
    case::{
        ClaimedFix, ExceptionClaim, Symptom,
        keys::{RawException, RawExceptionParts, RawSham, RawSymptom},
    },
    defects::Defects,
};

impl CaseReader<'_> {
    /// An outcome as reports write it.
    pub(super) fn outcome(&self, outcome: &Spanned<String>) -> Result<OutcomePattern, Error> {
        let text = outcome.get_ref();
        if let Ok(pattern) = text.parse() {
            return Ok(pattern);
        }
        let known = Ending::FIXED_TEXTS.iter().copied().chain(["http 500", "http 400 truncated", "close 1011"]);
        let number: String = text.chars().filter(char::is_ascii_digit).collect();
        let spaced = ["http", "close"].iter().find(|word| text.trim_start().starts_with(**word) && number.len() >= 3);
        let spaced = spaced.map(|word| format!("did you mean `{word} {number}`?")).filter(|_| !text.contains(' '));
        let help = spaced.or_else(|| did_you_mean(text, known.clone())).unwrap_or_else(|| {
            format!("write it as in {}", known.map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", "))
        });
        Err(self.error(outcome.span(), format!("unknown outcome `{text}`"), Some(help)))
    }

    /// The symptom, and what it is behind particular servers.
    pub(super) fn symptoms(
        &self,
        raw: Spanned<RawSymptom>,
        profiles: Option<&Vec<String>>,
        twin: &Defects,
    ) -> Result<(Symptom, BTreeMap<String, Symptom>), Error> {
        let whole = raw.span();
        let raw = raw.into_inner();
        let is_on_backend = !twin.is_empty();
        let symptom = Symptom {
            class: raw.class,
            outcome: raw.outcome.map(|outcome| self.outcome(&outcome)).transpose()?,
            cause: raw.cause,
            exception: raw.exception.map(|exception| self.exception(exception)).transpose()?,
            log: raw.log.map(|text| self.text_to_find(text)).transpose()?,
            reason: raw.reason.map(|text| self.text_to_find(text)).transpose()?,
            found_by: raw.found_by.as_ref().map_or(Ok(Vec::new()), |names| self.checks(names.get_ref()))?,
        };
        if symptom == Symptom::default() {
            let help = Some("name at least the outcome, as in `outcome = \"http 500\"`".to_owned());
            return Err(self.error(whole, "this symptom claims nothing", help));
        }
        let is_whole = symptom.class.is_some() && symptom.outcome.is_some() && symptom.cause.is_some();
        if is_on_backend && !is_whole {
            let help = Some("on the backend a symptom has `outcome`, `class`, `cause` and `found_by`".to_owned());
            return Err(self.error(whole, "this symptom is not whole", help));
        }
        // No check has a finding about a good class; there the case's own expectations tell the versions apart.
        let is_told_apart = !is_on_backend || symptom.class.is_some_and(Class::is_good);
        if symptom.found_by.is_empty() && !is_told_apart {
            let help = Some("a symptom that is no finding of any check proves nothing".to_owned());
            let span = raw.found_by.as_ref().map_or(whole, Spanned::span);
            return Err(self.error(span, "`found_by` names no check", help));
        }
        let mut symptom_on = BTreeMap::new();
        for (profile, changes) in raw.on {
            let exception = changes.exception.map(|exception| self.exception(exception)).transpose()?;
            let changed = Symptom {
                class: changes.class.or(symptom.class),
                outcome: changes.outcome.map(|outcome| self.outcome(&outcome)).transpose()?.or(symptom.outcome),
                cause: changes.cause.or(symptom.cause),
                exception: exception.or_else(|| symptom.exception.clone()),
                log: changes.log.or_else(|| symptom.log.clone()).filter(|log| !log.is_empty()),
                reason: changes.reason.or_else(|| symptom.reason.clone()).filter(|reason| !reason.is_empty()),
                found_by: changes.found_by.map_or(Ok(symptom.found_by.clone()), |names| self.checks(&names))?,
            };
            for name in self.servers(&profile, profiles)? {
                symptom_on.insert(name, changed.clone());
            }
        }
        Ok((symptom, symptom_on))
    }

    /// A text that something has to contain; an empty one is contained in everything.
    fn text_to_find(&self, text: Spanned<String>) -> Result<String, Error> {
        if text.get_ref().is_empty() {
            return Err(self.error(
                text.span(),
                "every text contains the empty one",
                Some("leave the key out".to_owned()),
            ));
        }
        Ok(text.into_inner())
    }

    fn exception(&self, raw: Spanned<RawException>) -> Result<ExceptionClaim, Error> {
        let span = raw.span();
        exception_claim(raw.into_inner()).map_err(|why| self.error(span, why, None))
    }

    /// The servers that a key names, with spaces between, behind which a case runs.
    fn servers(&self, key: &Spanned<String>, profiles: Option<&Vec<String>>) -> Result<Vec<String>, Error> {
        let mut servers = Vec::new();
        for name in key.get_ref().split_whitespace() {
            let name = Spanned::new(key.span(), name.to_owned());
            let name = self.one_of("server profile", &name, self.known.profiles)?;
            if profiles.is_some_and(|names| !names.contains(&name)) {
                let help = Some("add it to `profiles`".to_owned());
                return Err(self.error(key.span(), format!("the case does not run behind `{name}`"), help));
            }
            servers.push(name);
        }
        Ok(servers)
    }

    /// A fix that was claimed and is none.
    pub(super) fn sham(&self, raw: RawSham, profiles: Option<&Vec<String>>) -> Result<ClaimedFix, Error> {
        if raw.claim.get_ref().trim().is_empty() || raw.defects.get_ref().is_empty() {
            let help = Some("say what was claimed, and name the defects of the tree it left".to_owned());
            return Err(self.error(raw.defects.span(), "this claimed fix says nothing", help));
        }
        let defects = self.defects(raw.defects.get_ref().iter())?;
        let outcome = self.outcome(&raw.outcome)?;
        let mut on = BTreeMap::new();
        for (profile, changes) in raw.on {
            let ending = changes.outcome.map_or(Ok(outcome), |outcome| self.outcome(&outcome))?;
            for name in self.servers(&profile, profiles)? {
                on.insert(name, (ending, changes.class.unwrap_or(raw.class)));
            }
        }
        Ok(ClaimedFix {
            claim: raw.claim.into_inner(),
            defects,
            outcome,
            class: raw.class,
            found_by: self.checks(&raw.found_by)?,
            on,
        })
    }
}

fn exception_claim(raw: RawException) -> Result<ExceptionClaim, &'static str> {
    match raw {
        RawException::Written(text) => text.parse(),
        RawException::Parts(RawExceptionParts { type_name, text, place }) => {
            let place = place.map(|place| place.parse()).transpose()?;
            let claim: ExceptionClaim = type_name.parse()?;
            let text = text.or(claim.text).filter(|text| !text.is_empty());
            Ok(ExceptionClaim { text, place, ..claim })
        }
    }
}
