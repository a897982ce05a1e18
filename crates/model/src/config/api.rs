//! `[api]`: the HTTP/JSON API of a router, and its web page.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    Pki,
    problems::Problems,
    read::{At, Section, Value, choice, flag, list, parsed, text},
};

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";
/// Longest path of a Unix socket, bytes: `sockaddr_un.sun_path` without its zero (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;
/// Names of client certificates in one list.
const MOST_NAMES: usize = 256;
/// Longest name of a client certificate, bytes (a DNS name, RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 253;

/// `[api]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    pub listen: ApiListen,
    /// Who may do what.
    pub roles: ApiRoles,
    /// Whether there is a web page at `/`.
    pub page: bool,
}

/// Where the API is offered, and how its clients prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiListen {
    /// A Unix socket; the kernel tells which user a client is.
    Unix(PathBuf),
    /// TLS; a client shows a certificate of one of the authorities.
    Tls(ApiTls),
    /// TCP on a loopback address without TLS: every process of this host may read, and nobody may give orders.
    Loopback(SocketAddr),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTls {
    pub address: SocketAddr,
    /// PEM files; those of `[pki]` where the section names none.
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub authority: PathBuf,
}

/// Who may read, and who may also give orders. A reload takes a change up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiRoles {
    /// Names in client certificates.
    pub read: Vec<String>,
    pub operate: Vec<String>,
    /// Groups of users at the Unix socket.
    pub read_group: Option<String>,
    pub operate_group: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tls {
    ClientCertificates,
    None,
}

enum Listen {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// The outer `None`: the section is wrong. The inner: there is none, and so no API.
#[expect(clippy::option_option, reason = "wrong and missing are different, and wrong is noted already")]
pub(super) fn read_api(
    problems: &mut Problems,
    mut section: Section<'_>,
    pki: Option<&Pki>,
    file: &str,
) -> Option<Option<Api>> {
    let present = section.is_present();
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let listen = if present {
        section.required(
            problems,
            "listen",
            "listen = \"unix:/run/vipad/r1/api.sock\" or \"10.0.0.1:9780\"",
            read_listen,
        )
    } else {
        section.optional(problems, "listen", read_listen).flatten()
    };
    let words = [("client-certificates", Tls::ClientCertificates), ("none", Tls::None)];
    let tls = section.optional(problems, "tls", choice(&words));
    let mut file =
        |key| Some(section.optional(problems, key, text)?.map(|at| At { value: folder.join(at.value), span: at.span }));
    let (certificate, key, authority) = (file("certificate"), file("key"), file("authority"));
    let read = section.optional(problems, "read", names);
    let operate = section.optional(problems, "operate", names);
    let read_group = section.optional(problems, "read_group", text);
    let operate_group = section.optional(problems, "operate_group", text);
    let page = section.or(problems, "page", false, flag);
    section.finish(problems);
    if !present {
        return Some(None);
    }
    let (listen, tls) = (listen?, tls?);
    let (certificate, key, authority) = (certificate?, key?, authority?);
    let (read, operate, read_group, operate_group) = (read?, operate?, read_group?, operate_group?);

    let span_of = |there: &Option<At<PathBuf>>| there.as_ref().map(|at| at.span.clone());
    let files = [span_of(&certificate), span_of(&key), span_of(&authority)];
    let names = [&read, &operate].map(|names| names.as_ref().map(|at| at.span.clone()));
    let groups = [&read_group, &operate_group].map(|group| group.as_ref().map(|at| at.span.clone()));
    let is_unix = matches!(listen.value, Listen::Unix(_));
    let plain = matches!(tls, Some(At { value: Tls::None, .. }));
    let mut refuse = |spans: &[Option<std::ops::Range<usize>>], message: &str| {
        for span in spans.iter().flatten() {
            problems.add::<()>(span.clone(), message);
        }
    };
    if is_unix {
        refuse(
            &[tls.map(|tls| tls.span)],
            "`tls` is of a TCP address; at a Unix socket the kernel tells who a client is",
        );
        refuse(&files, "a Unix socket has no certificates; leave this out");
        refuse(&names, "clients of a Unix socket have no certificates; name groups: `read_group`, `operate_group`");
    } else {
        refuse(
            &groups,
            "groups are of a Unix socket; name client certificates: `read = [\"alice\"]`, `operate = [\"bob\"]`",
        );
    }
    if plain && !is_unix {
        refuse(&files, "with tls = \"none\" there are no certificates; leave this out");
        refuse(
            &names,
            "with tls = \"none\" nobody is known by name: every process of this host may read; leave this out",
        );
    }
    let read = read.map_or_else(Vec::new, |names| names.value);
    let operate = operate.map_or_else(Vec::new, |names| names.value);
    let value = |there: Option<At<PathBuf>>, pki: &Path| there.map_or_else(|| pki.to_owned(), |at| at.value);
    let value_of = match listen.value {
        Listen::Unix(path) => ApiListen::Unix(path),
        Listen::Tcp(address) if plain && !address.ip().is_loopback() => {
            let message = "tls = \"none\" is for loopback addresses only, such as \"127.0.0.1:9780\"; elsewhere clients \
                           show certificates";
            return problems.add(listen.span, message);
        }
        Listen::Tcp(address) if plain => ApiListen::Loopback(address),
        Listen::Tcp(_) if read.is_empty() && operate.is_empty() => {
            let message = "nobody could use the API: name client certificates, such as `read = [\"alice\"]` or \
                           `operate = [\"bob\"]` (`vipactl pki client alice` makes them)";
            return problems.add(section.span, message);
        }
        Listen::Tcp(address) => {
            let pki = pki?;
            let (certificate, key) = (value(certificate, &pki.certificate), value(key, &pki.key));
            ApiListen::Tls(ApiTls { address, certificate, key, authority: value(authority, &pki.ca) })
        }
    };
    let group = |group: Option<At<String>>| group.map(|at| at.value);
    let roles = ApiRoles { read, operate, read_group: group(read_group), operate_group: group(operate_group) };
    Some(Some(Api { listen: value_of, roles, page: page?.value }))
}

fn read_listen(problems: &mut Problems, value: &Value<'_>) -> Option<Listen> {
    let words = text(problems, value)?;
    let Some(path) = words.strip_prefix(UNIX) else {
        let what = "\"unix:/run/vipad/r1/api.sock\" or an IP address and a port such as \"10.0.0.1:9780\"";
        let address: SocketAddr = parsed(what)(problems, value)?;
        if address.port() == 0 {
            return problems.add(value.span(), "this needs a port that clients can know: not 0");
        }
        return Some(Listen::Tcp(address));
    };
    if !path.starts_with('/') || path.len() > LONGEST_SOCKET_PATH {
        let message = format!("the path of a Unix socket begins with / and has at most {LONGEST_SOCKET_PATH} bytes");
        return problems.add(value.span(), message);
    }
    Some(Listen::Unix(path.into()))
}

fn names(problems: &mut Problems, value: &Value<'_>) -> Option<Vec<String>> {
    let names = list(name)(problems, value)?;
    if names.len() > MOST_NAMES {
        return problems.add(value.span(), format!("at most {MOST_NAMES} names"));
    }
    Some(names)
}

/// The name in a client certificate.
fn name(problems: &mut Problems, value: &Value<'_>) -> Option<String> {
    let name = text(problems, value)?;
    if name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        let message = format!("a certificate's name has at most {LONGEST_NAME} bytes and no control characters");
        return problems.add(value.span(), message);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Config, tests::ROUTER},
        *,
    };

    fn with(section: &str) -> Result<Option<Api>, String> {
        let text = format!("{ROUTER}\n[api]\n{section}\n");
        Config::parse("/etc/vipa/r1.toml", &text).map(|config| config.api).map_err(|errors| errors.to_string())
    }

    fn refused(section: &str) -> String {
        with(section).unwrap_err()
    }

    #[test]
    fn there_is_no_api_unless_the_configuration_has_one() {
        assert_eq!(Config::parse("r1.toml", ROUTER).unwrap().api, None);
    }

    #[test]
    fn a_unix_socket_has_groups() {
        let api =
            with("listen = \"unix:/run/vipad/r1/api.sock\"\nread_group = \"staff\"\npage = true").unwrap().unwrap();
        assert_eq!(api.listen, ApiListen::Unix("/run/vipad/r1/api.sock".into()));
        assert_eq!(api.roles, ApiRoles { read_group: Some("staff".into()), ..ApiRoles::default() });
        assert!(api.page);
        let text = refused("listen = \"unix:/run/vipad/r1/api.sock\"\nread = [\"alice\"]");
        assert!(text.contains("name groups: `read_group`"), "{text}");
        let text = refused("listen = \"unix:api.sock\"");
        assert!(text.contains("begins with /"), "{text}");
        let text = refused(&format!("listen = \"unix:/{}\"", "a".repeat(LONGEST_SOCKET_PATH)));
        assert!(text.contains("at most 107 bytes"), "{text}");
    }

    #[test]
    fn an_address_has_certificates_and_takes_those_of_pki_where_it_names_none() {
        let api = with("listen = \"10.0.0.1:9780\"\noperate = [\"alice\"]").unwrap().unwrap();
        let ApiListen::Tls(tls) = api.listen else { panic!("{api:?}") };
        assert_eq!(tls.address, "10.0.0.1:9780".parse().unwrap());
        assert_eq!((tls.certificate, tls.authority), ("/etc/vipa/r1.pem".into(), "/etc/vipa/ca.pem".into()));
        assert!(!api.page);
        let own = "listen = \"10.0.0.1:9780\"\nread = [\"alice\"]\ncertificate = \"api.pem\"\nkey = \"api.key\"\n\
                   authority = \"/srv/people.pem\"";
        let ApiListen::Tls(tls) = with(own).unwrap().unwrap().listen else { panic!() };
        let files = (tls.certificate, tls.key, tls.authority);
        assert_eq!(files, ("/etc/vipa/api.pem".into(), "/etc/vipa/api.key".into(), "/srv/people.pem".into()));
        let text = refused("listen = \"10.0.0.1:9780\"");
        assert!(text.contains("nobody could use the API"), "{text}");
        let text = refused("listen = \"10.0.0.1:9780\"\nread = [\"alice\"]\nread_group = \"staff\"");
        assert!(text.contains("groups are of a Unix socket"), "{text}");
        assert!(refused("listen = \"10.0.0.1:0\"\nread = [\"alice\"]").contains("not 0"));
        assert!(refused("listen = \"somewhere\"\nread = [\"alice\"]").contains("such as \"10.0.0.1:9780\""));
        assert!(refused("listen = \"10.0.0.1:9780\"\nread = [\"a\\u0007\"]").contains("no control characters"));
        let many: Vec<String> = (0..=MOST_NAMES).map(|number| format!("\"n{number}\"")).collect();
        assert!(
            refused(&format!("listen = \"10.0.0.1:1\"\nread = [{}]", many.join(","))).contains("at most 256 names")
        );
    }

    #[test]
    fn without_tls_there_is_loopback_alone_and_only_by_an_explicit_word() {
        let api = with("listen = \"127.0.0.1:9780\"\ntls = \"none\"").unwrap().unwrap();
        assert_eq!(api.listen, ApiListen::Loopback("127.0.0.1:9780".parse().unwrap()));
        let api = with("listen = \"[::1]:9780\"\ntls = \"none\"").unwrap().unwrap();
        assert!(matches!(api.listen, ApiListen::Loopback(_)));
        assert!(refused("listen = \"127.0.0.1:9780\"").contains("nobody could use the API"), "the word is not said");
        let text = refused("listen = \"10.0.0.1:9780\"\ntls = \"none\"");
        assert!(text.contains("for loopback addresses only"), "{text}");
        let text = refused("listen = \"127.0.0.1:9780\"\ntls = \"none\"\noperate = [\"alice\"]");
        assert!(text.contains("nobody is known by name"), "{text}");
        assert!(refused("listen = \"127.0.0.1:9780\"\ntls = \"none\"\nkey = \"k\"").contains("no certificates"));
        assert!(refused("listen = \"unix:/a\"\ntls = \"none\"").contains("`tls` is of a TCP address"));
    }

    #[test]
    fn the_section_needs_a_place_and_a_router() {
        assert!(refused("page = true").contains("`api.listen` is missing"));
        assert!(refused("listen = \"unix:/a\"\npages = true").contains("did you mean `page`?"));
    }
}
