//! What the answers to an operator's doings look like: reload, audit, drill, diff.

use std::fmt::Write;

use vipa_protocol::admin::{
    Audit, AuditExample, AuditResult, Diff, DiffRow, Difference, Drill, DrillTarget, Loss, Peer, PeerAnswer, Reload,
    ReloadChange, ReloadOutcome, TargetAudit,
};

use super::{milliseconds, node_name, ports, service_name, span, up_or_down};
use crate::table::{Side, Table, grouped};

pub(super) fn reload(out: &mut String, reload: &Reload) -> anyhow::Result<()> {
    let Reload { file, changes, outcome, confirm_within_ms } = reload;
    if !changes.is_empty() {
        let columns = [("changes", Side::Left), ("from", Side::Left), ("to", Side::Left), ("", Side::Left)];
        let mut table = Table::new("", &columns);
        for ReloadChange { what, from, to, needs_restart } in changes {
            let needs = if *needs_restart { "needs a restart" } else { "" };
            table.row([what.clone(), from.clone(), to.clone(), needs.into()]);
        }
        table.print(out);
        out.push('\n');
    }
    match outcome {
        ReloadOutcome::Unchanged => writeln!(out, "{file} says what the router does already")?,
        ReloadOutcome::Rehearsed if changes.iter().any(|change| change.needs_restart) => {
            writeln!(out, "nothing was changed; some of it needs a restart of vipad")?;
        }
        ReloadOutcome::Rehearsed => writeln!(out, "nothing was changed; `vipactl reload` applies it")?,
        ReloadOutcome::Applied => writeln!(out, "applied")?,
        ReloadOutcome::AppliedInPart => writeln!(out, "applied, but for what needs a restart of vipad")?,
        ReloadOutcome::NeedsRestart => writeln!(
            out,
            "nothing was changed, because some of it needs a restart of vipad; `vipactl reload --live` applies the rest"
        )?,
    }
    if let Some(ms) = confirm_within_ms {
        writeln!(out, "it is taken back in {}, unless `vipactl confirm` comes before", span(*ms))?;
    }
    Ok(())
}

pub(super) fn audit(out: &mut String, audit: &Audit) -> anyhow::Result<()> {
    let columns = [("vipa", Side::Left), ("target", Side::Left), ("node", Side::Left), ("the table", Side::Left)];
    let mut table = Table::new("", &columns);
    for TargetAudit { vipa, target, node, result } in &audit.targets {
        table.row([vipa.to_string(), target.to_string(), node.to_string(), verdict(result)]);
    }
    if audit.targets.is_empty() {
        out.push_str("no target is linked, so there is nobody to ask\n");
        return Ok(());
    }
    table.print(out);
    for TargetAudit { vipa: _, target: _, node, result } in &audit.targets {
        let AuditResult::Differs { examples, .. } = result else { continue };
        for AuditExample { connection, difference } in examples {
            let (protocol, port) = (connection.protocol.name(), connection.port);
            writeln!(out, "  {node}: {} to {protocol}/{port}: {}", connection.client, explained(*difference))?;
        }
    }
    Ok(())
}

fn verdict(result: &AuditResult) -> String {
    match result {
        AuditResult::Agrees { connections } => format!("agrees on all {} connections", grouped(*connections)),
        AuditResult::NoAnswer => "could not be compared: no answer".into(),
        AuditResult::Differs { connections, differences, examples: _, parts_left, repaired } => {
            let counts: Vec<_> = differences
                .iter()
                .map(|(difference, count)| format!("{} {}", grouped(*count), difference.name()))
                .collect();
            let more = if *parts_left > 0 { ", and more to be looked at" } else { "" };
            let repaired = if *repaired { "; repaired" } else { "; --repair puts it right" };
            format!("differs: {} of {}{more}{repaired}", counts.join(", "), grouped(*connections))
        }
    }
}

fn explained(difference: Difference) -> &'static str {
    match difference {
        Difference::Missing => "the target holds it, the table does not know it",
        Difference::Elsewhere => "the target holds it, the table has it at another",
        Difference::Unconfirmed => "the target holds it, the table has it in another state",
        Difference::Stale => "the table has it, the target does not",
    }
}

pub(super) fn drill(out: &mut String, drill: &Drill) -> anyhow::Result<()> {
    let Drill {
        vipa,
        owner,
        owned_here,
        before,
        voters,
        voters_linked,
        detect_us,
        collect_us,
        rebuild_us,
        connections,
        targets,
        losses,
        unserved,
    } = drill;
    let owner = owner.as_ref().map_or_else(|| "nobody".into(), ToString::to_string);
    let whose = if *owned_here { "this router".into() } else { owner };
    writeln!(out, "VIPA {vipa}, owned by {whose}; were its owner to fail now:")?;
    let before: Vec<_> = before.iter().map(ToString::to_string).collect();
    match (*owned_here, before.is_empty()) {
        (true, true) => writeln!(
            out,
            "  order        this router is the owner, and NO OTHER that may own it is linked: all would be lost"
        )?,
        (true, false) => {
            let next = before.join(", ");
            writeln!(
                out,
                "  order        this router is the owner; after it {next}: ask there for what would come of it"
            )?;
        }
        (false, true) => writeln!(out, "  order        this router would be the next owner")?,
        (false, false) => writeln!(out, "  order        after {}", before.join(", "))?,
    }
    let majority = if voters_linked * 2 > *voters { "a majority" } else { "NO MAJORITY: it could not be granted" };
    writeln!(out, "  voters       {voters_linked} of {voters} reachable, {majority}")?;
    let total = detect_us + collect_us + rebuild_us;
    writeln!(
        out,
        "  time         about {}: detect {}, collect {}, rebuild {}",
        milliseconds(total),
        milliseconds(*detect_us),
        milliseconds(*collect_us),
        milliseconds(*rebuild_us)
    )?;
    writeln!(out, "  connections  {} in the table", grouped(*connections))?;
    let columns = [
        ("target", Side::Left),
        ("node", Side::Left),
        ("link", Side::Left),
        ("packets", Side::Left),
        ("listening", Side::Left),
        ("known", Side::Right),
        ("held", Side::Right),
        ("others", Side::Right),
        ("behind", Side::Right),
        ("answer", Side::Right),
    ];
    let mut table = Table::new("  ", &columns);
    for DrillTarget {
        address,
        node,
        candidate: _,
        linked,
        reached,
        listening,
        known,
        held,
        others,
        behind,
        answer_us,
    } in targets
    {
        let number = |value: Option<u64>| value.map_or_else(|| "-".into(), grouped);
        table.row([
            address.to_string(),
            node_name(node.as_ref()),
            up_or_down(*linked),
            if *reached { "reach it" } else { "do not" }.into(),
            ports(listening),
            grouped(*known),
            number(*held),
            grouped(*others),
            number(*behind),
            answer_us.map_or_else(|| "-".into(), milliseconds),
        ]);
    }
    if !targets.is_empty() {
        table.print(out);
    }
    for service in unserved {
        writeln!(out, "  unserved     {}: no reachable target listens", service_name(service))?;
    }
    for Loss { target, connections, why } in losses {
        let count = connections.map_or_else(|| "an unknown number".into(), grouped);
        writeln!(out, "  lost         {count} at {target}: {why}")?;
    }
    match (losses.is_empty(), *owned_here) {
        (true, true) if before.is_empty() => out.push_str("  lost         everything\n"),
        (true, _) => out.push_str("  lost         nothing\n"),
        (false, _) => {}
    }
    Ok(())
}

pub(super) fn diff(out: &mut String, diff: &Diff) -> anyhow::Result<()> {
    let Diff { vipa, peers } = diff;
    if peers.is_empty() {
        writeln!(out, "VIPA {vipa}: no other router has a rank for it")?;
    }
    for Peer { node, answer } in peers {
        match answer {
            PeerAnswer::Differs(rows) if rows.is_empty() => {
                writeln!(out, "VIPA {vipa}: {node} is configured as this router is")?;
            }
            PeerAnswer::Differs(rows) => {
                writeln!(out, "VIPA {vipa}: {node} differs")?;
                let there = node.to_string();
                let mut table =
                    Table::new("  ", &[("what", Side::Left), ("here", Side::Left), (there.as_str(), Side::Left)]);
                for DiffRow { what, here, there } in rows {
                    table.row([what.clone(), here.clone(), there.clone()]);
                }
                table.print(out);
            }
            PeerAnswer::NotConfigured => writeln!(out, "VIPA {vipa}: {node} has no [[vipa]] for it")?,
            PeerAnswer::Refused(why) => writeln!(out, "VIPA {vipa}: {node} is not listened to: {why}")?,
            PeerAnswer::Silent => writeln!(out, "VIPA {vipa}: {node} is not linked or does not answer")?,
        }
    }
    Ok(())
}
