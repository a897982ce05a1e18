//! `[announce]`, `[hooks]`, `[autonomics]` and `[admin]`.

use std::time::Duration;

use super::{
    AdminAccess, Announce, Autonomics, Hooks,
    problems::Problems,
    read::{Section, Value, number, text},
    sections::interface_name,
};

/// Announcements a VIPA may have beside the first and the refreshing ones.
const MOST_REPEATS: usize = 32;
/// The longest wait for a repetition.
const LATEST_REPEAT_MS: u64 = 3_600_000;

pub(super) fn read_announce(problems: &mut Problems, mut section: Section<'_>) -> Option<Announce> {
    let repeat = section.or(problems, "repeat_ms", vec![20, 100, 500, 1_000, 3_000, 10_000], growing);
    let refresh = section.or(problems, "refresh_s", 60, number(0..=3_600_u64, "a number of seconds (0: never)"));
    let interface = section.optional(problems, "interface", interface_name);
    let tables = number(1..=u32::MAX, "a routing table's number");
    let table = section.or(problems, "table", 7_400, |problems, value| {
        let table = tables(problems, value)?;
        // The kernel forwards by these: a route to the TUN interface would swallow what is not ours.
        if [253, 254, 255].contains(&table) {
            return problems.add(value.span(), "this table is the kernel's own; use one of yours, such as 7400");
        }
        Some(table)
    });
    section.finish(problems);
    Some(Announce {
        repeat: repeat?.value.into_iter().map(Duration::from_millis).collect(),
        refresh: Some(refresh?.value).filter(|seconds| *seconds > 0).map(Duration::from_secs),
        interface: interface?.map(|name| name.value),
        table: table?.value,
    })
}

fn growing(problems: &mut Problems, value: &Value<'_>) -> Option<Vec<u64>> {
    let times = super::read::list(number(1..=LATEST_REPEAT_MS, "a number of milliseconds"))(problems, value)?;
    if times.len() > MOST_REPEATS {
        return problems.add(value.span(), format!("at most {MOST_REPEATS} repetitions; refresh_s does the rest"));
    }
    if !times.is_sorted() {
        return problems.add(value.span(), "these are counted from the takeover, so each must be later than the last");
    }
    Some(times)
}

pub(super) fn read_hooks(problems: &mut Problems, mut section: Section<'_>) -> Option<Hooks> {
    let owned = section.optional(problems, "owned", command);
    let released = section.optional(problems, "released", command);
    let timeout = section.or(problems, "timeout_ms", 5_000, number(10..=60_000_u64, "a number of milliseconds"));
    section.finish(problems);
    Some(Hooks {
        owned: owned?.map(|command| command.value),
        released: released?.map(|command| command.value),
        timeout: Duration::from_millis(timeout?.value),
    })
}

pub(super) fn read_autonomics(problems: &mut Problems, mut section: Section<'_>) -> Option<Autonomics> {
    let milliseconds = |from| number(from..=3_600_000_u64, "a number of milliseconds");
    let unfit_after = section.or(problems, "unfit_after_ms", 500, milliseconds(100));
    let fit_after = section.or(problems, "fit_after_ms", 5_000, milliseconds(100));
    let stall = section.or(problems, "stall_ms", 250, milliseconds(50));
    section.finish(problems);
    Some(Autonomics {
        unfit_after: Duration::from_millis(unfit_after?.value),
        fit_after: Duration::from_millis(fit_after?.value),
        stall: Duration::from_millis(stall?.value),
    })
}

/// A program, by its whole path, and its arguments; they may repeat.
fn command(problems: &mut Problems, value: &Value<'_>) -> Option<Vec<String>> {
    let what = "this must be a program and its arguments, such as [\"/usr/local/bin/vipa-hook\", \"owned\"]";
    let Some(array) = value.get_ref().as_array().filter(|array| !array.is_empty()) else {
        return problems.add(value.span(), what);
    };
    let words = array.iter().map(|word| text(problems, word)).collect::<Option<Vec<_>>>()?;
    if !words[0].starts_with('/') {
        let message = format!("name the program by its whole path, such as \"/usr/bin/{}\"", words[0]);
        return problems.add(array[0].span(), message);
    }
    Some(words)
}

pub(super) fn read_admin(problems: &mut Problems, mut section: Section<'_>) -> Option<AdminAccess> {
    let group = section.optional(problems, "group", group_name);
    let read_group = section.optional(problems, "read_group", group_name);
    section.finish(problems);
    Some(AdminAccess { group: group?.map(|name| name.value), read_group: read_group?.map(|name| name.value) })
}

fn group_name(problems: &mut Problems, value: &Value<'_>) -> Option<String> {
    let name = text(problems, value)?;
    if name.is_empty() || name.len() > 64 || name.contains([':', ',', '/', '\0', ' ']) {
        return problems.add(value.span(), "this is no name of a group of this host, such as \"vipa\"");
    }
    Some(name)
}
