//! The formats of results. A format is a file here that fills in a [`Renderer`], and a line in [`RENDERERS`].

mod human;
mod json;
mod markdown;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use relapse::trial::Report;
use relapse_core::conformance::Conformance;

use super::{
    catalogue::Listing,
    corpus::CorpusReport,
    hunt::{DetectionFigures, HuntDocument, Hunts},
    proxy::ProxyEvent,
    validation::{Try, Validations},
};

/// The formats, the usual one first.
pub const RENDERERS: &[&Renderer] = &[&human::HUMAN, &markdown::MARKDOWN, &json::JSON];

/// A format: for each kind of result the function that makes text of it, at most so many characters wide. A command takes
/// the formats that have what it prints, and refuses the others.
#[derive(Debug, Clone, Copy)]
pub struct Renderer {
    /// The value of `--format`.
    pub name: &'static str,
    /// Other values that mean the same.
    pub aliases: &'static [&'static str],
    /// The format in one line, for help.
    pub about: &'static str,
    /// When the results behind several profiles are printed.
    pub printing: Printing,
    /// The verdicts of `run` and `replay`.
    pub verdicts: Option<fn(&Report, usize) -> String>,
    /// The results of `hunt`.
    pub hunt: Option<HuntPages>,
    /// The results of `conform`.
    pub conformance: Option<fn(&[Conformance], usize) -> String>,
    /// The results of `validate`.
    pub validation: Option<ValidationPages>,
    /// The catalogue of `list`.
    pub catalogue: Option<fn(&Listing<'_>, usize) -> String>,
    /// The log of `proxy`; empty for what the format leaves out.
    pub log: Option<fn(&ProxyEvent<'_>) -> String>,
}

/// When the results behind several profiles are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Printing {
    /// Each as soon as it is there, below the name of its profile.
    AsItComes,
    /// All together, as one document that names the profiles.
    AtTheEnd,
}

/// The pages of a hunt.
#[derive(Debug, Clone, Copy)]
pub struct HuntPages {
    /// The reproducers that were replayed before the hunt; empty where the page of the hunt has them.
    pub replayed: fn(&Report, usize) -> String,
    /// The hunts behind one profile or several.
    pub hunts: fn(&Hunts) -> String,
    /// The joined parts of a campaign.
    pub merged: fn(&HuntDocument) -> String,
    /// The figures of a detection.
    pub detection: fn(&DetectionFigures<'_>, usize) -> String,
    /// The mistakes of a corpus, found and missed.
    pub corpus: fn(&CorpusReport, usize) -> String,
}

/// The pages of a validation.
#[derive(Debug, Clone, Copy)]
pub struct ValidationPages {
    /// The results behind one profile or several.
    pub validations: fn(&Validations, usize) -> String,
    /// One of the tries of `--watch`.
    pub watched: fn(&Try) -> String,
}

impl Renderer {
    /// A format of this name without any result.
    pub const fn new(name: &'static str, about: &'static str, printing: Printing) -> Renderer {
        Renderer {
            name,
            aliases: &[],
            about,
            printing,
            verdicts: None,
            hunt: None,
            conformance: None,
            validation: None,
            catalogue: None,
            log: None,
        }
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// A format that has what a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Format<P> {
    /// When the results behind several profiles are printed.
    pub printing: Printing,
    /// The pages that the command prints.
    pub pages: P,
}

impl<P: Clone + Send + Sync + 'static> Format<P> {
    /// A parser of the formats that have these pages.
    pub fn parser(pages: fn(&Renderer) -> Option<P>) -> impl TypedValueParser<Value = Format<P>> {
        let values = RENDERERS.iter().filter(move |renderer| pages(renderer).is_some());
        let values =
            values.map(|renderer| PossibleValue::new(renderer.name).aliases(renderer.aliases).help(renderer.about));
        PossibleValuesParser::new(values.collect::<Vec<_>>()).try_map(move |name| {
            let renderer = RENDERERS.iter().find(|renderer| renderer.is_called(&name));
            let found =
                renderer.and_then(|renderer| Some(Format { printing: renderer.printing, pages: pages(renderer)? }));
            found.ok_or_else(|| format!("no format `{name}`"))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Printing, RENDERERS};

    #[test]
    fn every_format_has_a_name_of_its_own() {
        let names: Vec<&str> = RENDERERS
            .iter()
            .flat_map(|renderer| [renderer.name].into_iter().chain(renderer.aliases.iter().copied()))
            .collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }

    /// The values of the commands begin with it, and the default of every `--format` is its name.
    #[test]
    fn the_usual_format_has_every_result() {
        let human = RENDERERS[0];
        assert_eq!((human.name, human.printing), ("human", Printing::AsItComes));
        assert!(human.verdicts.is_some() && human.conformance.is_some() && human.catalogue.is_some());
        assert!(human.hunt.is_some() && human.validation.is_some() && human.log.is_some());
    }
}
