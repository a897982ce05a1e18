//! The figures, each a module of its own. A new one is a module and a line here.

mod table;

use crate::figure::Figure;

pub(crate) const ALL: [Figure; 1] = [Figure {
    id: "P4",
    what: "the connection table: lookups a second and core, bytes a connection",
    measure: table::measure,
}];
