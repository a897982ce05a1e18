//! What may not leave a router: the cluster's key, private keys, and the arguments of hooks.

/// What stands where something was left out.
const LEFT_OUT: &str = "(left out)";
/// Shorter values are no secrets and would cut words.
const SHORTEST: usize = 8;
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

/// Values that are searched for.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets {
    values: Vec<String>,
}

impl Secrets {
    /// A configuration without its secrets and comments, and what they are. `None`: it is no TOML.
    pub(super) fn of_configuration(text: &str) -> Option<(String, Self)> {
        let mut table: toml::Table = text.parse().ok()?;
        let mut secrets = Self::default();
        if let Some(key) = table.get_mut("cluster").and_then(|cluster| cluster.get_mut("key")) {
            secrets.take(key);
        }
        // A hook's arguments may be anything: tokens, too.
        if let Some(toml::Value::Table(hooks)) = table.get_mut("hooks") {
            for (_, hook) in hooks.iter_mut().filter(|(_, hook)| hook.is_array() || hook.is_str()) {
                if let toml::Value::Array(arguments) = hook {
                    arguments.iter_mut().skip(1).for_each(|argument| secrets.take(argument));
                } else {
                    secrets.take(hook);
                }
            }
        }
        let text = toml::to_string(&table).ok()?;
        let text = secrets.cut(&text);
        Some((text, secrets))
    }

    /// Remembers a value and replaces it.
    fn take(&mut self, value: &mut toml::Value) {
        if let toml::Value::String(text) = value
            && text.len() >= SHORTEST
        {
            self.values.push(text.clone());
        }
        *value = toml::Value::String(LEFT_OUT.into());
    }

    /// A text without them, and without private keys.
    pub(super) fn cut(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for value in &self.values {
            for form in [value.clone(), value.to_lowercase(), value.to_uppercase()] {
                text = text.replace(&form, LEFT_OUT);
            }
        }
        without_private_keys(&text)
    }

    /// Whether bytes hold one of them, as text or, of hexadecimal digits, as bytes.
    pub(super) fn are_in(&self, bytes: &[u8]) -> bool {
        let has = |part: &[u8]| !part.is_empty() && bytes.windows(part.len()).any(|window| window == part);
        let is_in = |value: &String| has(value.as_bytes()) || of_hexadecimal(value).is_some_and(|raw| has(&raw));
        has(b"PRIVATE KEY-----") || self.values.iter().any(is_in)
    }
}

fn of_hexadecimal(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// Cuts each PEM block whose label says that it is a private key; one without an end reaches to the end of the text.
fn without_private_keys(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let (before, block) = rest.split_at(at);
        kept.push_str(before);
        let label = block[BEGIN.len()..].split_once("-----").map_or("", |(label, _)| label);
        if !label.contains("PRIVATE KEY") {
            kept.push_str(BEGIN);
            rest = &block[BEGIN.len()..];
            continue;
        }
        kept.push_str(LEFT_OUT);
        let end = block.find(&format!("{END}{label}-----")).map(|end| end + END.len() + label.len() + 5);
        rest = end.map_or("", |end| &block[end..]);
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURATION: &str = r#"
# once the key was ffffffffffffffffffffffffffffffff
[node]
name = "r1"
[pki]
key = "/etc/vipa/r1.key"
[cluster]
name = "demo"
key = "000102030405060708090a0b0c0d0e0f"
[hooks]
owned = ["/usr/local/bin/hook", "--token", "swordfish-and-more"]
timeout_ms = 5000
"#;

    #[test]
    fn a_configuration_is_kept_without_its_secrets_and_comments() {
        let (text, secrets) = Secrets::of_configuration(CONFIGURATION).unwrap();
        for secret in ["000102030405060708090a0b0c0d0e0f", "swordfish", "ffffffff"] {
            assert!(!text.contains(secret), "{text}");
        }
        for kept in
            ["/etc/vipa/r1.key", "name = \"demo\"", "/usr/local/bin/hook", "timeout_ms = 5000", "key = \"(left out)\""]
        {
            assert!(text.contains(kept), "{kept} in {text}");
        }
        assert_eq!(secrets.cut("key 000102030405060708090A0B0C0D0E0F!"), "key (left out)!");
        assert_eq!(Secrets::of_configuration("key = [").map(|(text, _)| text), None);
    }

    #[test]
    fn private_keys_are_cut_and_certificates_are_not() {
        let certificate = "-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----";
        let half = "-----BEGIN EC PRIVATE KEY-----\nMHcC";
        let text = format!("a {certificate}{key} b {key} c {half}");
        assert_eq!(Secrets::default().cut(&text), format!("a {certificate}(left out) b (left out) c (left out)"));
    }

    #[test]
    fn bytes_are_searched_for_text_and_for_what_digits_stand_for() {
        let (_, secrets) = Secrets::of_configuration(CONFIGURATION).unwrap();
        let raw: Vec<u8> = (0..16).collect();
        assert!(secrets.are_in(&[&[9, 9], &raw[..], &[9]].concat()));
        assert!(secrets.are_in(b"..swordfish-and-more.."));
        assert!(secrets.are_in(b"-----BEGIN PRIVATE KEY-----"));
        assert!(!secrets.are_in(b"an ordinary recording"));
    }
}
