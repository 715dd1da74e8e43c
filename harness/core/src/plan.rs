//! The seed and the faults of a run: the only source of chance.

use crate::fault::Fault;

/// A seed and an ordered list of faults. The same plan gives the same transcript, byte for byte.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Decides masks, keys and identifiers.
    pub seed: u64,
    /// The faults, in the order in which they are asked.
    pub faults: Vec<Fault>,
}
