//! ICMP errors about our own outer packets: a tunnel's path takes less than we send.

use vipa_handoff::{Fate, Note, Reason};
use vipa_packet::{PacketTooBig, Parsed};

use super::At;
use crate::{TurnContext, batch::Verdict};

/// Where GUE is sent to: what IANA has assigned to it.
const GUE_PORT: u16 = 6_080;

/// Tells control how much the path to a target takes, if that is less than what is known. `None`: the message is about no packet that this
/// port sent to a target. Whoever forges one must know both ends of a tunnel, and can lower the path's MTU to the least that
/// control accepts, for as long as control keeps it.
#[inline(never)]
pub(super) fn narrow_path(context: &TurnContext<'_>, at: At<'_>, frame: &[u8], parsed: &Parsed) -> Option<Verdict> {
    let path = PacketTooBig::read(frame, parsed, GUE_PORT).filter(|path| at.route.has(path.source))?;
    let target = context.routes.find_target(path.destination)?;
    if path.mtu >= target.path_mtu {
        return Some(Verdict::Done(Fate::Punt));
    }
    // A full box counts what it refuses; the next packet that is too big brings the same word.
    let told = context.shared.notes.try_send(Note::NarrowPath { target: path.destination, mtu: path.mtu });
    Some(if told.is_ok() { Verdict::Done(Fate::Punt) } else { Verdict::drop(Reason::Icmp) })
}
