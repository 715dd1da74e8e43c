//! Hunts that a time ends.

use std::fs;

use tempfile::tempdir;

use super::{
    alone,
    asked::LIMIT,
    watched::{Ended, Watched},
};

/// It fails on every request.
const APP: &str = "async def app(scope, receive, send):\n    raise KeyError('lost')\n";

/// A hunt without a limit on its cases keeps a part of its time, in which it shrinks and confirms each finding.
#[test]
#[cfg_attr(not(has_python), ignore = "needs Python 3 with venv")]
fn a_hunt_has_time_for_its_findings() {
    let (_alone, here) = (alone(), tempdir().unwrap());
    fs::write(here.path().join("service.py"), APP).unwrap();
    let python = crate::tools::python().display().to_string();
    let arguments = ["hunt", "--target", "asgi:service:app", "--python", &python, "--path", "GET /"];
    let arguments = [&arguments[..], &["--time", "20s", "--format", "json"]].concat();
    let ended: Ended = Watched::start(&arguments, here.path()).end_within(LIMIT);
    let document: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let found = document["found"].as_array().unwrap();
    let told: Vec<&serde_json::Value> = found.iter().map(|found| &found["reproduction"]).collect();
    assert!(!told.is_empty() && told.iter().all(|told| *told == "shown"), "{ended:?}");
}
