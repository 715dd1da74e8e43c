//! The generator is stable: a further fault kind, server or route changes only the cases in which it occurs.

use relapse::{
    external::{External, Front},
    hunt::{ExternalTarget, GeneratedCase, GeneratorConfig, draw},
    route::Route,
    service_file::ServiceFile,
};
use relapse_backend::runner::FAULT_NAMES;
use relapse_core::{
    asgi::value::escape_bytes,
    client::step::{Request, Step},
    fault::{FaultKind, Place},
};
use relapse_simulate::clock::{Clock, Runtime};

use crate::support::{Reached, Scripted, check_page, profile, server_names};

/// How many cases are drawn for each comparison.
const CASES: u64 = 3000;

/// How many of them are drawn for each kind of fault, of which there are many.
const CASES_PER_KIND: u64 = 500;

fn everything() -> GeneratorConfig {
    GeneratorConfig::everything(server_names(), FAULT_NAMES)
}

/// The limits without one kind of fault.
fn without_kind(name: &str) -> GeneratorConfig {
    let mut config = everything();
    config.kinds.retain(|kind| kind.name != name);
    config
}

fn has_kind(drawn: &GeneratedCase, name: &str) -> bool {
    drawn.faults.iter().any(|fault| fault.kind.name() == name)
}

/// A service with these routes, and with a service file or none.
fn service(routes: &[&str], file: Option<&str>) -> ExternalTarget {
    let application = Scripted::new(|_, _| async { Ok(()) });
    let target = Reached::of(&(application as _), &profile("uvicorn-0.35"));
    let routes = routes.iter().map(|route| Route::parse(route).unwrap()).collect();
    let external = External { routes, ..External::new(target, Front::Unknown) };
    let file = file.map_or_else(ServiceFile::unknown, |text| ServiceFile::parse("relapse.toml", text).unwrap());
    ExternalTarget::new(external, file, Runtime::new(Clock::Virtual))
}

const ROUTES: [&str; 5] =
    ["ws:/chat", "ws:/rooms/{room}?user=1", "GET /items", "POST /orders", "GET /users/{user}?q=1"];

/// Compares what two generators draw. Where the new thing does not occur in a case, the case is as before; and it does
/// occur.
#[track_caller]
fn check_stable(
    label: &str,
    cases: u64,
    before: impl Fn(u64) -> GeneratedCase,
    after: impl Fn(u64) -> GeneratedCase,
    occurs: impl Fn(&GeneratedCase) -> bool,
) {
    let mut changed = 0;
    for seed in 0..cases {
        let (before, after) = (before(seed), after(seed));
        if occurs(&after) {
            changed += 1;
        } else {
            assert_eq!(before, after, "{label}: seed {seed}");
        }
    }
    assert!((1..cases).contains(&changed), "{label} occurs in {changed} of {cases} cases");
}

#[test]
fn a_further_fault_kind_changes_only_the_cases_in_which_it_occurs() {
    let all = everything();
    let drawn: Vec<GeneratedCase> = (0..CASES).map(|seed| draw(seed, &all)).collect();
    for kind in FaultKind::all() {
        let without = without_kind(kind.name);
        let with = drawn.iter().enumerate().filter(|(_, drawn)| !has_kind(drawn, kind.name));
        for (seed, drawn) in with.take(CASES_PER_KIND as usize) {
            assert_eq!(draw(seed as u64, &without), *drawn, "{}: seed {seed}", kind.name);
        }
        assert!(drawn.iter().any(|drawn| has_kind(drawn, kind.name)), "{} never occurs", kind.name);
    }
    let without = without_kind("set_version");
    check_stable(
        "set_version",
        CASES,
        |seed| draw(seed, &without),
        |seed| draw(seed, &all),
        |drawn| has_kind(drawn, "set_version"),
    );
}

/// The same where the specification must allow each fault, so that some that are drawn do not take part.
#[test]
fn a_further_legal_fault_kind_changes_only_the_cases_in_which_it_occurs() {
    let legal = |config| GeneratorConfig { legal_only: true, places: vec![Place::Scope, Place::Event], ..config };
    for name in ["drop_key", "set_key", "reshape_headers", "give_event", "send_delays", "cancel"] {
        let (before, after) = (legal(without_kind(name)), legal(everything()));
        check_stable(name, CASES, |seed| draw(seed, &before), |seed| draw(seed, &after), |drawn| has_kind(drawn, name));
    }
}

#[test]
fn a_further_server_changes_only_the_cases_behind_it() {
    let all = everything();
    for added in &all.servers {
        let servers = all.servers.iter().filter(|name| *name != added).cloned().collect();
        let before = GeneratorConfig { servers, ..everything() };
        let draw_after = |seed| draw(seed, &all);
        check_stable(added, CASES / 3, |seed| draw(seed, &before), draw_after, |drawn| drawn.server == *added);
        // Behind it is done the same as behind another one.
        for seed in 0..CASES / 3 {
            let (before, after) = (draw(seed, &before), draw_after(seed));
            assert_eq!(GeneratedCase { server: after.server.clone(), ..before }, after, "{added}: seed {seed}");
        }
    }
}

/// The order of a list says nothing.
#[test]
fn a_case_does_not_depend_on_the_order_of_candidates() {
    let (all, mut turned) = (everything(), everything());
    turned.servers.reverse();
    turned.kinds.reverse();
    turned.places.reverse();
    (0..CASES).for_each(|seed| assert_eq!(draw(seed, &all), draw(seed, &turned), "seed {seed}"));
}

/// A service with its own routes: a further kind of fault, and a further route.
#[test]
fn visits_by_route_are_stable_too() {
    const FILE: &str =
        "[paths]\nwebsocket = \"/socket\"\n[credential]\nliteral = \"x\"\n[messages]\nrequest = \"{}\"\n";
    for file in [None, Some(FILE)] {
        let target = service(&ROUTES, file);
        let (before, after) = (without_kind("strip_header"), everything());
        let occurs = |drawn: &GeneratedCase| has_kind(drawn, "strip_header");
        check_stable(
            "strip_header",
            CASES,
            |seed| target.draw(seed, &before),
            |seed| target.draw(seed, &after),
            occurs,
        );
        for (at, added) in ROUTES.iter().enumerate() {
            let mut fewer = ROUTES.to_vec();
            fewer.remove(at);
            let (less, route) = (service(&fewer, file), Route::parse(added).unwrap());
            let visits = |drawn: &GeneratedCase| drawn.steps().iter().any(|step| visits(step, &route));
            check_stable(added, CASES / 3, |seed| less.draw(seed, &after), |seed| target.draw(seed, &after), visits);
        }
    }
}

/// Whether a step is a request to a route, with whatever in the place of its parameters and behind it.
fn visits(step: &Step, route: &Route) -> bool {
    let Some(request) = step.opening() else { return false };
    let start = route.path.split('{').next().unwrap_or_default();
    request.path.starts_with(start.as_bytes())
}

/// A case in one line: where and for how many clients, the requests, the number of other steps, and the faults.
fn line(seed: u64, drawn: &GeneratedCase) -> String {
    let steps = drawn.steps();
    let requests: Vec<String> = steps.iter().filter_map(Step::opening).map(shown).collect();
    let others = steps.len() - requests.len();
    let faults: Vec<String> = drawn.faults.iter().map(|fault| fault.kind.to_string()).collect();
    let (crowd, environment) = (drawn.crowd, drawn.environment);
    let clients = format!("{}x{}x{}", crowd.users, crowd.connections, crowd.rounds);
    format!("{seed:>2}  {environment}  {clients}  {}  and {others}  {}", requests.join(", "), faults.join(", "))
        .trim_end()
        .to_owned()
}

/// A request without its headers, and of a long path or query the start.
fn shown(request: &Request) -> String {
    let query = if request.query.is_empty() { String::new() } else { format!("?{}", escape_bytes(&request.query)) };
    let path: String = escape_bytes(&request.path).chars().take(40).collect();
    let query: String = query.chars().take(40).collect();
    format!("{} {path}{query}", request.method)
}

/// A seed gives the same case in every process and with every release, until a change of the generator is meant. One
/// server is enough: which one is drawn changes with their number.
#[test]
fn a_seed_gives_one_case() {
    let all = GeneratorConfig { servers: vec![server_names().remove(0)], ..everything() };
    let target = service(&ROUTES, None);
    let built_in = (1..=20).map(|seed| line(seed, &draw(seed, &all)));
    let by_route = (1..=20).map(|seed| line(seed, &target.draw(seed, &all)));
    let page: Vec<String> = ["the built-in backend".to_owned()]
        .into_iter()
        .chain(built_in)
        .chain([String::new(), "a service by its routes".to_owned()])
        .chain(by_route)
        .collect();
    check_page("draws", &(page.join("\n") + "\n"));
}
