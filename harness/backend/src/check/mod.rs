//! The checks that only this service has. Each is a file, and a line in [`KNOWN`] and in the service.

mod delivery_retried;

pub use delivery_retried::DeliveryRetried;

use relapse_core::judge::check::Check;

/// Every one, by its name and property.
pub const KNOWN: &[&dyn Check] = &[&DeliveryRetried { attempts: 0 }];
