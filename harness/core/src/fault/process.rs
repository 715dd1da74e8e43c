//! The faults of the server's process.

use super::{
    draw::{module, set_variable, unset_variable, up_to_ms, variable_value},
    setting::{Time, faults},
};

faults! {
    /// One fault of the process, as the case begins.
    ProcessFault at Process;
    /// starts the process anew
    Restart "restart", weight 1 {} "the process is started anew";
    /// keeps the process away until the fault is over, and starts it anew then
    Absent "absent", weight 1 {} "no process is there";
    /// starts the process anew, and a module cannot be imported until the fault is over
    MissingModule "missing_module", weight 1 {
        /// The module's name.
        module: String as "module" from module,
    } "the module {module} cannot be imported";
    /// starts the process anew with another value of an environment variable
    SetVariable "set_variable", weight 1 {
        /// The variable's name.
        name: String as "name" from set_variable,
        /// Its value.
        value: String as "value" from variable_value,
    } "{name} is {value:?}";
    /// starts the process anew without an environment variable
    UnsetVariable "unset_variable", weight 5 {
        /// The variable's name.
        name: String as "name" from unset_variable,
    } "{name} is not set";
    /// starts the process anew as the case begins, tells it to stop at this time (SIGTERM), kills it where it does not within 10 s, and starts another when it is gone
    ShutDown "shut_down", weight 2 {
        /// When, since the case began.
        at: Time as "at_ms" from up_to_ms(20_000),
    } "the process is told to stop at {at}";
}

impl ProcessFault {
    /// The variable it sets or unsets: its name, and its value if it has one.
    pub fn variable(&self) -> Option<(&str, Option<&str>)> {
        match self {
            ProcessFault::SetVariable { name, value } => Some((name, Some(value))),
            ProcessFault::UnsetVariable { name } => Some((name, None)),
            ProcessFault::Restart {}
            | ProcessFault::Absent {}
            | ProcessFault::MissingModule { .. }
            | ProcessFault::ShutDown { .. } => None,
        }
    }

    /// Whether it lasts until a moment that has to be named.
    pub fn ends(&self) -> bool {
        matches!(self, ProcessFault::Absent {} | ProcessFault::MissingModule { .. })
    }
}
