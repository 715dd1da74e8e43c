//! Whatever clients do and whatever fails, the repaired service holds: every client gets a good class, no check
//! has a finding, and nothing is left behind. The hunt's own generator stands behind the strategy, because it is a hundred
//! times as fast as combinators; the hunt also shrinks, so that what is printed is small.

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use relapse::{discover::servers, hunt::Hunt};
use relapse_backend::{defect::Defect, revision::Revision, runner::ground};
use relapse_core::fault::Place;

use crate::support::property_config;

/// Tries scripts and plans from anywhere among the seeds; the key of what was found.
fn try_all(revision: Revision, places: &[Place], legal_only: bool) -> Result<(), TestError<u64>> {
    let hunt = Hunt { places: places.to_vec(), legal_only, ..Hunt::on(ground(revision), servers().unwrap(), 1) };
    TestRunner::new(property_config()).run(&any::<u64>(), |seed| {
        let campaign = Hunt { seed, ..hunt.clone() }.run().unwrap();
        let found: Vec<String> =
            campaign.found.iter().map(|found| format!("{}\n{}", found.key, found.capsule.print())).collect();
        prop_assert!(found.is_empty(), "{}", found.join("\n"));
        Ok(())
    })
}

#[test]
fn whatever_happens_every_client_gets_a_good_answer() {
    if let Err(error) = try_all(Revision::repaired(), &Place::ALL, false) {
        panic!("{error}");
    }
}

#[test]
fn so_it_is_behind_servers_that_keep_to_the_specification() {
    if let Err(error) = try_all(Revision::repaired(), &[Place::Scope, Place::Event], true) {
        panic!("{error}");
    }
}

#[test]
fn so_it_is_without_faults() {
    if let Err(error) = try_all(Revision::repaired(), &[], false) {
        panic!("{error}");
    }
}

/// The same, on services with a defect each: what is tried here is able to fail.
#[test]
fn what_is_tried_finds_defects() {
    for defect in [
        Defect::QueryParamsOnUrl,
        Defect::ReadinessFailOpen,
        Defect::ExceptionSwallowed,
        Defect::HealthConstant,
        Defect::RelaxedAuthentication,
        Defect::ManagersLeak,
    ] {
        assert!(try_all(Revision::only(defect), &Place::ALL, false).is_err(), "{} is not found", defect.name());
    }
}
