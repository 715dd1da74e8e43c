//! The corpus: small services with one mistake each, and how the finding of a mistake is told from others.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, de::Error as _};
use toml::Spanned;

use crate::{
    discover::{matches_glob, requirements},
    files::{FileLimit, read_text},
    hunt::Found,
};
use relapse_core::{
    error::{Error, did_you_mean},
    judge::{
        outcome::Class,
        verdict::{FindingKey, Rule},
    },
};

/// Where the requirement sets of services are, among all sets.
const SETS: &str = "corpus/";

/// The services of a corpus that are selected.
#[derive(Debug, Default)]
pub struct Corpus {
    /// The services, by name.
    pub services: Vec<CorpusService>,
    /// The folders that hold no whole service, and the filters that select nothing.
    pub broken: Vec<Error>,
}

/// A small service with one mistake, and the same service repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorpusService {
    /// The name of its folder.
    pub name: String,
    /// Its folder.
    pub directory: PathBuf,
    /// The set of packages that it needs, by its whole name; `None` where it needs none.
    pub requirements: Option<String>,
    /// The mistake in one sentence.
    pub mistake: String,
    /// The public report that it retells.
    pub source: String,
    /// How a client shows it, in one sentence.
    pub trigger: String,
    /// The finding that shows it.
    pub finding: ExpectedFinding,
    /// Findings on both versions that are right.
    pub known: Vec<KnownMistake>,
}

/// A finding that is right on both versions, because it shows a mistake of a library that they use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownMistake {
    /// The class or check that sees it, with its subject if it has one: `legal_close` or `legal_close: reason`.
    pub key: String,
    /// A text in its message; `None` for any.
    pub message: Option<String>,
    /// The mistake of the library in one sentence, with its version.
    pub reason: String,
}

/// A version of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorpusVersion {
    /// The one with the mistake.
    Mistaken,
    /// The repaired one.
    Repaired,
}

/// The finding that shows a mistake.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedFinding {
    /// The route that it is on; `None` for any.
    pub route: Option<ExpectedRoute>,
    /// How it shows: in any of these ways, as an exception may be another one behind another server.
    #[serde(deserialize_with = "one_or_more")]
    pub symptom: Vec<MistakeSymptom>,
    /// The function that raises the exception, as in `function` or `module:function`; `None` for any.
    pub function: Option<String>,
}

/// A route as its framework writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedRoute {
    /// The method; `None` for a WebSocket.
    method: Option<String>,
    path: String,
}

/// How a mistake shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MistakeSymptom {
    /// As an exception of this type.
    Exception(String),
    /// As something that classes and checks see.
    Seen(&'static SeenSymptom),
}

/// A symptom without an exception, and the classes and checks that stand for it.
#[derive(Debug, PartialEq, Eq)]
pub struct SeenSymptom {
    name: &'static str,
    classes: &'static [Class],
    checks: &'static [&'static str],
}

/// The checks for what a client gets and should not.
const WRONG_DATA: &[&str] = &["isolation", "own_state", "answers_agree", "delivered_once"];

/// The symptoms without an exception.
const SYMPTOMS: [SeenSymptom; 5] = [
    SeenSymptom { name: "hang", classes: &[Class::Hang], checks: &["bounded_wait"] },
    SeenSymptom { name: "no answer", classes: &[Class::NoAnswer], checks: &["answered"] },
    SeenSymptom { name: "drop", classes: &[Class::Dropped], checks: &["no_drop", "body_complete"] },
    SeenSymptom { name: "leak", classes: &[], checks: &["no_residue", "handler_ends"] },
    SeenSymptom { name: "wrong data", classes: &[Class::WronglyAdmitted], checks: WRONG_DATA },
];

/// A `mistake.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MistakeFile {
    mistake: String,
    source: String,
    requirements: Option<Spanned<String>>,
    trigger: String,
    finding: ExpectedFinding,
    #[serde(default)]
    known: Vec<KnownMistake>,
}

impl Corpus {
    /// Reads the services in the folders of a directory that any of the filters selects, all of them without one. A filter
    /// is a name or a glob over names. What cannot be read does not keep the others from being read.
    ///
    /// # Errors
    /// When there is no such directory, or no folder in it.
    pub fn read(directory: &Path, filters: &[String]) -> Result<Corpus, Error> {
        let names = folders(directory)?;
        if names.is_empty() {
            return Err(Error::NoServices(directory.to_owned()));
        }
        let selects = |filter: &String, name: &String| name == filter || matches_glob(filter, name);
        let vain = filters.iter().filter(|filter| !names.iter().any(|name| selects(filter, name)));
        let broken = vain.map(|filter| Error::unknown("service", filter, names.iter().map(String::as_str)));
        let mut corpus = Corpus { services: Vec::new(), broken: broken.collect() };
        let is_selected = |name: &&String| filters.is_empty() || filters.iter().any(|filter| selects(filter, name));
        for name in names.iter().filter(is_selected) {
            match CorpusService::read(name, &directory.join(name)) {
                Ok(service) => corpus.services.push(service),
                Err(error) => corpus.broken.push(error),
            }
        }
        Ok(corpus)
    }
}

/// The names of the folders in a directory, sorted. Those that begin with a dot or an underscore hold no service.
fn folders(directory: &Path) -> Result<Vec<String>, Error> {
    let failed = Error::io("read the directory", directory);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with(['.', '_']) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

impl CorpusVersion {
    /// Both versions, in the order in which they are hunted on.
    pub const ALL: [CorpusVersion; 2] = [CorpusVersion::Mistaken, CorpusVersion::Repaired];

    /// The name of its module, which is a file of the service.
    pub fn module(self) -> &'static str {
        match self {
            CorpusVersion::Mistaken => "app",
            CorpusVersion::Repaired => "fixed",
        }
    }
}

impl CorpusService {
    fn read(name: &str, directory: &Path) -> Result<CorpusService, Error> {
        let path = directory.join("mistake.toml");
        let text = read_text(&path, FileLimit::WRITTEN)?;
        let path = path.display().to_string();
        let file: MistakeFile = toml::from_str(&text).map_err(|error| Error::toml(&path, &text, &error))?;
        let requirements = file.requirements.map(|set| whole_name(&path, &text, &set)).transpose()?;
        let (name, directory) = (name.to_owned(), directory.to_owned());
        let MistakeFile { mistake, source, trigger, finding, known, .. } = file;
        let service = CorpusService { name, directory, requirements, mistake, source, trigger, finding, known };
        for version in CorpusVersion::ALL {
            let file = service.file(version);
            if !file.is_file() {
                return Err(Error::io("find", &file)(io::ErrorKind::NotFound.into()));
            }
        }
        Ok(service)
    }

    /// The file of a version.
    pub fn file(&self, version: CorpusVersion) -> PathBuf {
        self.directory.join(version.module()).with_extension("py")
    }
}

/// The whole name of a requirement set that services name.
fn whole_name(path: &str, text: &str, set: &Spanned<String>) -> Result<String, Error> {
    let name = set.get_ref();
    let mut known = requirements().filter_map(|(known, _)| known.strip_prefix(SETS));
    if known.any(|known| known == name) {
        return Ok(format!("{SETS}{name}"));
    }
    let known = requirements().filter_map(|(known, _)| known.strip_prefix(SETS));
    let message = format!("there is no requirement set `{name}` for services");
    Err(Error::at(path, text, set.span(), message, did_you_mean(name, known)))
}

impl KnownMistake {
    /// Whether a hunt's finding, or another one of its smallest case, is this one.
    pub fn is(&self, found: &Found) -> bool {
        let also = found.also.iter().any(|(key, message)| self.is_key(key, message));
        also || self.is_key(&found.key, &found.message)
    }

    /// Whether a finding with this key and message is this one.
    fn is_key(&self, key: &FindingKey, message: &str) -> bool {
        let rest = key.to_string();
        let rest = rest.strip_prefix(&self.key);
        let is_key = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ':']));
        is_key && self.message.as_ref().is_none_or(|text| message.contains(text))
    }
}

impl ExpectedFinding {
    /// Whether a hunt's finding, or another one of its smallest case, is this one.
    pub fn is(&self, found: &Found) -> bool {
        let visited = found.capsule.finding.as_ref().map_or(&[][..], |finding| &finding.routes);
        let keys = std::iter::once(&found.key).chain(found.also.iter().map(|(key, _)| key));
        keys.into_iter().any(|key| self.is_key(key, visited))
    }

    /// Whether a finding with this key is this one, in a case that visits these routes. What a finding does not know is not
    /// compared.
    pub fn is_key(&self, key: &FindingKey, visited: &[String]) -> bool {
        let (route, exception) = match &key.site {
            Some(site) => (site.route.as_ref(), site.exception.as_ref()),
            None => (None, None),
        };
        let routes = route.map_or(visited, std::slice::from_ref);
        let is_on_route = match &self.route {
            Some(expected) => routes.is_empty() || routes.iter().any(|route| expected.is(route)),
            None => true,
        };
        let is_symptom = self.symptom.iter().any(|symptom| match symptom {
            // A type of a server's library comes with its module.
            MistakeSymptom::Exception(name) => {
                exception.is_some_and(|exception| exception.type_name.rsplit('.').next() == Some(name.as_str()))
            }
            MistakeSymptom::Seen(symptom) => symptom.is_seen_by(key.rule),
        });
        let raised_in = exception.and_then(|exception| exception.place.as_ref()).map(|(function, _)| function.as_str());
        let is_in_function = match (self.function(), raised_in) {
            // A comprehension or a lambda is a part of the function that has it.
            (Some(expected), Some(function)) => expected == function || function.starts_with('<'),
            (None, _) | (_, None) => true,
        };
        is_on_route && is_symptom && is_in_function
    }

    /// How it shows, for people.
    pub fn symptoms(&self) -> String {
        self.symptom.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
    }

    /// The name of the function, without its module.
    fn function(&self) -> Option<&str> {
        let function = self.function.as_deref()?;
        Some(function.rsplit_once(':').map_or(function, |(_, function)| function))
    }
}

impl ExpectedRoute {
    fn parse(text: &str) -> Option<ExpectedRoute> {
        let (method, path) = text.split_once(' ')?;
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        let method = (method != "WEBSOCKET").then(|| method.to_owned());
        (is_method && path.starts_with('/')).then(|| ExpectedRoute { method, path: path.to_owned() })
    }

    /// Whether it is a route as hunts tell it: `ws:/path`, or `GET,POST /path`.
    fn is(&self, told: &str) -> bool {
        let path = match (&self.method, told.strip_prefix("ws:")) {
            (None, path) => path,
            (Some(method), None) => {
                let told = told.split_once(' ');
                told.filter(|(methods, _)| methods.split(',').any(|told| told == method)).map(|(_, path)| path)
            }
            (Some(_), Some(_)) => None,
        };
        path.is_some_and(|path| is_same_path(&self.path, path))
    }
}

/// Whether two paths are one, however a framework writes parameters: `{id}`, `<int:id>`. One stands for anything.
fn is_same_path(one: &str, other: &str) -> bool {
    let is_parameter = |segment: &str| segment.contains(['{', '<']);
    let (mut ones, mut others) = (one.split('/'), other.split('/'));
    loop {
        match (ones.next(), others.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if one == other || is_parameter(one) || is_parameter(other) => {}
            (Some(_), Some(_)) | (Some(_), None) | (None, Some(_)) => return false,
        }
    }
}

impl SeenSymptom {
    fn is_seen_by(&self, rule: Rule) -> bool {
        match rule {
            Rule::Check(name) => self.checks.contains(&name),
            Rule::Class(class) => self.classes.contains(&class),
            Rule::NoPanic => false,
        }
    }
}

impl<'de> Deserialize<'de> for ExpectedRoute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ExpectedRoute, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || D::Error::custom("write a route as in `GET /orders/{id}` or `WEBSOCKET /chat`");
        ExpectedRoute::parse(&text).ok_or_else(wrong)
    }
}

impl MistakeSymptom {
    fn parse(text: &str) -> Result<MistakeSymptom, String> {
        if let Some(symptom) = SYMPTOMS.iter().find(|symptom| symptom.name == text) {
            return Ok(MistakeSymptom::Seen(symptom));
        }
        let is_type = text.starts_with(|first: char| first.is_ascii_uppercase())
            && text.chars().all(|character| character.is_alphanumeric() || character == '_');
        if is_type {
            return Ok(MistakeSymptom::Exception(text.to_owned()));
        }
        let names: Vec<String> = SYMPTOMS.iter().map(|symptom| format!("`{}`", symptom.name)).collect();
        Err(format!("a symptom is the type of an exception, or one of {}", names.join(", ")))
    }
}

/// One symptom, or a list of them.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MistakeSymptom>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        Several(Vec<String>),
    }
    let texts = match Texts::deserialize(deserializer)? {
        Texts::One(text) => vec![text],
        Texts::Several(texts) => texts,
    };
    texts.iter().map(|text| MistakeSymptom::parse(text).map_err(D::Error::custom)).collect()
}

impl fmt::Display for ExpectedRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.as_deref().unwrap_or("WEBSOCKET"), self.path)
    }
}

impl fmt::Display for MistakeSymptom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MistakeSymptom::Exception(name) => name,
            MistakeSymptom::Seen(symptom) => symptom.name,
        })
    }
}

#[cfg(test)]
mod tests {
    use relapse_core::judge::{
        check,
        harm::Harm,
        outcome::Class,
        verdict::{FindingKey, FindingSite, RaisedAt, Rule},
    };
    use rstest::rstest;

    use super::{ExpectedFinding, KnownMistake, SYMPTOMS};

    fn expected(text: &str) -> ExpectedFinding {
        toml::from_str(text).unwrap()
    }

    fn key(rule: Rule, route: Option<&str>, exception: Option<(&str, Option<&str>)>) -> FindingKey {
        let exception = exception.map(|(name, function)| RaisedAt {
            type_name: name.to_owned(),
            place: function.map(|function| (function.to_owned(), 7)),
        });
        let site = FindingSite { route: route.map(str::to_owned), exception };
        FindingKey { rule, harm: Harm::Crash, subject: None, site: Some(site) }
    }

    #[test]
    fn every_check_of_a_symptom_is_there() {
        for name in SYMPTOMS.iter().flat_map(|symptom| symptom.checks) {
            assert!(check::ALL.iter().any(|check| check.name() == *name), "{name}");
        }
    }

    const ESCAPED: Rule = Rule::Check("no_escaped_exception");

    #[rstest]
    #[case::same(key(ESCAPED, Some("GET,HEAD /orders/{number}"), Some(("KeyError", Some("order")))), true)]
    #[case::unknown_place(key(ESCAPED, Some("GET /orders/{id}"), Some(("KeyError", None))), true)]
    #[case::unknown_route(key(ESCAPED, None, Some(("KeyError", Some("order")))), true)]
    #[case::of_a_library(key(ESCAPED, Some("GET /orders/{id}"), Some(("shop._util.KeyError", Some("order")))), true)]
    #[case::comprehension(key(ESCAPED, Some("GET /orders/{id}"), Some(("KeyError", Some("<listcomp>")))), true)]
    #[case::type_differs(key(ESCAPED, Some("GET /orders/{id}"), Some(("TypeError", Some("order")))), false)]
    #[case::function_differs(key(ESCAPED, Some("GET /orders/{id}"), Some(("KeyError", Some("other")))), false)]
    #[case::method_differs(key(ESCAPED, Some("POST /orders/{id}"), Some(("KeyError", Some("order")))), false)]
    #[case::path_differs(key(ESCAPED, Some("GET /orders/{id}/x"), Some(("KeyError", Some("order")))), false)]
    #[case::websocket(key(ESCAPED, Some("ws:/orders/{id}"), Some(("KeyError", Some("order")))), false)]
    #[case::no_exception(key(Rule::Class(Class::Hang), Some("GET /orders/{id}"), None), false)]
    fn an_exception_is_told_from_others(#[case] key: FindingKey, #[case] fits: bool) {
        let expected =
            expected("route = \"GET /orders/<int:id>\"\nsymptom = \"KeyError\"\nfunction = \"shop.views:order\"");
        assert_eq!(expected.is_key(&key, &[]), fits);
    }

    #[rstest]
    #[case::class(key(Rule::Class(Class::Dropped), Some("ws:/play"), None), true)]
    #[case::check(key(Rule::Check("no_drop"), Some("ws:/play"), Some(("OSError", Some("play")))), true)]
    #[case::raised_elsewhere(key(Rule::Check("no_drop"), Some("ws:/play"), Some(("OSError", Some("other")))), false)]
    #[case::another(key(Rule::Class(Class::Hang), Some("ws:/play"), None), false)]
    #[case::panic(key(Rule::NoPanic, Some("ws:/play"), None), false)]
    #[case::other_symptom(key(ESCAPED, Some("ws:/play"), Some(("ValueError", Some("play")))), true)]
    #[case::none_of_both(key(ESCAPED, Some("ws:/play"), Some(("KeyError", Some("play")))), false)]
    fn a_symptom_is_seen_by_its_rules(#[case] key: FindingKey, #[case] fits: bool) {
        let expected =
            expected("route = \"WEBSOCKET /play\"\nsymptom = [\"drop\", \"ValueError\"]\nfunction = \"play\"");
        assert_eq!(expected.is_key(&key, &[]), fits);
    }

    /// A finding about a whole run has no route of its own, and the case that shows it visits some.
    #[test]
    fn a_finding_without_a_route_is_on_those_of_its_case() {
        let expected = expected("route = \"WEBSOCKET /play\"\nsymptom = \"leak\"");
        let key = FindingKey { rule: Rule::Check("no_residue"), harm: Harm::Leak, subject: None, site: None };
        let visits = |routes: &[&str]| {
            let routes: Vec<String> = routes.iter().map(|route| (*route).to_owned()).collect();
            expected.is_key(&key, &routes)
        };
        assert!(visits(&[]) && visits(&["GET /", "ws:/play"]));
        assert!(!visits(&["GET /", "ws:/plays"]));
    }

    #[rstest]
    #[case::check("legal_close", None, true)]
    #[case::subject("legal_close: reason", Some("9022 bytes"), true)]
    #[case::another_subject("legal_close: code", None, false)]
    #[case::half_a_word("legal", None, false)]
    #[case::another_message("legal_close", Some("of 124 bytes"), false)]
    fn a_known_finding_is_told_by_key_and_message(
        #[case] key: &str,
        #[case] message: Option<&str>,
        #[case] is_known: bool,
    ) {
        let known = KnownMistake { key: key.to_owned(), message: message.map(str::to_owned), reason: String::new() };
        let site = FindingSite { route: Some("ws:/graphql".to_owned()), exception: None };
        let rule = Rule::Check("legal_close");
        let found = FindingKey { rule, harm: Harm::Drop, subject: Some("reason".to_owned()), site: Some(site) };
        assert_eq!(
            known.is_key(&found, "the application closed with a reason of 9022 bytes; 123 fit"),
            is_known,
            "{found}"
        );
    }

    #[rstest]
    #[case("symptom = \"flood\"", "one of `hang`, `no answer`, `drop`, `leak`, `wrong data`")]
    #[case("symptom = \"leak\"\nroute = \"/orders\"", "write a route as in `GET /orders/{id}`")]
    #[case("symptom = \"leak\"\nrout = \"GET /\"", "unknown field `rout`")]
    fn a_mistake_in_the_file_is_told(#[case] text: &str, #[case] told: &str) {
        let error = toml::from_str::<ExpectedFinding>(text).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
