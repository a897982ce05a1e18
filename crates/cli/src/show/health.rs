//! The verdict on a node, a line a check.

use std::fmt::Write;

use vipa_protocol::{Health, HealthCheck};

use crate::table::{Side, Table};

pub(crate) fn health(out: &mut String, health: &Health) -> anyhow::Result<()> {
    writeln!(out, "{}: {}", health.node, health.summary())?;
    let mut table = Table::new("", &[("verdict", Side::Left), ("check", Side::Left), ("finding", Side::Left)]);
    for HealthCheck { name, severity, finding } in &health.checks {
        table.row([severity.to_string(), name.clone(), finding.clone()]);
    }
    table.print(out);
    Ok(())
}
