//! A valid client gets through before, during and after.

use super::{Complaints, Evidence};
use crate::outcome::Class;

pub(super) fn look(evidence: &Evidence<'_>) -> Complaints {
    if evidence.control.class == Class::GoodOpen {
        return Vec::new();
    }
    vec![(evidence.control.ending.to_string(), format!("the valid client got {}", evidence.control))]
}
