//! Which of an app's own code ran: blocks, as the interpreter counts them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Code that runs as a whole, unless it raises: the body of a function, of a branch, of a loop, of an `except`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Its file, from the app's directory.
    pub file: Arc<str>,
    /// Its number among the blocks of the file, from 0, which the text of the file alone decides.
    pub number: u32,
}

/// Where a block is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockPlace {
    /// Its first line, from 1.
    pub first: u32,
    /// Its last line.
    pub last: u32,
    /// The name of the function that it is in.
    pub function: String,
    /// The line where that function begins, which tells it from others of the name.
    pub function_line: u32,
}

/// The blocks that are known of an app.
pub type Blocks = BTreeMap<Block, BlockPlace>;

/// The blocks that a call of the app reached, shared by the calls that reached the same.
pub type ReachedBlocks = Arc<BTreeSet<Block>>;
