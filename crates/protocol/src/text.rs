//! Free text in messages: made printable and short as it is read, because it goes into logs and to terminals.

use serde::{Deserialize, Deserializer};
use vipa_model::printable;

/// Bytes of a name that a node gives to a thing of its own.
pub const MAX_NAME: usize = 100;
/// Bytes of a reason.
pub const MAX_REASON: usize = 400;
/// Bytes of a setting's value, and settings in one answer.
pub const MAX_SETTING: usize = 4096;
pub const MAX_SETTINGS: usize = 64;

pub(crate) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(printable(&String::deserialize(deserializer)?, MAX_NAME))
}

pub(crate) fn check_detail<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(printable(&String::deserialize(deserializer)?, crate::load::MAX_CHECK_DETAIL))
}

pub(crate) fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(printable(&String::deserialize(deserializer)?, MAX_REASON))
}

pub(crate) fn optional_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    Ok(name.map(|name| printable(&name, MAX_NAME)))
}

pub(crate) fn optional_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let reason = Option::<String>::deserialize(deserializer)?;
    Ok(reason.map(|reason| printable(&reason, MAX_REASON)))
}

pub(crate) fn settings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    let mut settings = Vec::<(String, String)>::deserialize(deserializer)?;
    settings.truncate(MAX_SETTINGS);
    for (name, value) in &mut settings {
        *name = printable(name, MAX_NAME);
        *value = printable(value, MAX_SETTING);
    }
    Ok(settings)
}
