//! What the API offers: one line each of paths, the admin socket's request behind it, and the role that it takes.

use std::net::IpAddr;

use hyper::{Method, StatusCode};
use serde_json::{Map, Value};
use vipa_protocol::admin::{DEFAULT_LIMIT, Request};

use crate::{access::ApiRole, problem::Problem};

/// Connections that one answer lists at most.
const MOST_CONNECTIONS: u64 = 10_000;

/// In the year 5138, which nobody asks about.
const LATEST_MS: u64 = 100_000_000_000_000;

/// Something that the API does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) verb: Verb,
    pub(crate) path: &'static str,
    /// Names it in the description.
    pub(crate) id: &'static str,
    /// The admin socket's request, and those of its fields that are always the same.
    pub(crate) ask: &'static str,
    pub(crate) fixed: &'static [(&'static str, &'static str)],
    pub(crate) input: Input,
    /// The admin socket's answer.
    pub(crate) answer: &'static str,
    pub(crate) summary: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Post,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Input {
    /// In the query.
    Query(&'static [Parameter]),
    /// In the body, a JSON object with these fields.
    Body(&'static [&'static str]),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    /// The field of the request that has it as a field; empty: it is one itself.
    pub(crate) within: &'static str,
    pub(crate) kind: ParameterKind,
    pub(crate) about: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParameterKind {
    Number {
        default: u64,
        least: u64,
        most: u64,
    },
    Address,
    /// May be left out.
    OptionalAddress,
    /// As the admin protocol writes it.
    Word,
    OptionalWord,
}

const VIPA: &[Parameter] =
    &[Parameter { name: "vipa", within: "", kind: ParameterKind::Address, about: "A VIPA of this router" }];
const ANY_VIPA: Parameter = Parameter {
    name: "vipa",
    within: "",
    kind: ParameterKind::OptionalAddress,
    about: "Of this VIPA alone; else of all",
};

const fn get(path: &'static str, ask: &'static str, input: &'static [Parameter], summary: &'static str) -> Operation {
    Operation { verb: Verb::Get, path, id: ask, ask, fixed: &[], input: Input::Query(input), answer: ask, summary }
}

/// Every operation. A request of the admin socket that is not here is missing: a test holds the list to it.
#[rustfmt::skip]
pub(crate) const OPERATIONS: &[Operation] = &[
    get("/v1/status", "status", &[], "The router at a glance: its VIPAs, their owners and targets, its links, and what is wrong"),
    get("/v1/distribution", "distribution", &[], "Who may serve each service, who does, and how new connections are spread"),
    get("/v1/takeovers", "takeovers", &[], "The latest changes of ownership in which this router became owner, by phases"),
    get("/v1/counters", "counters", &[], "What became of every packet, and what control counts"),
    get("/v1/ports", "ports", &[], "Packets, bytes and losses of each port, as its driver counts them"),
    get("/v1/workers", "workers", &[], "How much of its time each worker is busy"),
    get("/v1/decisions", "decisions", &[], "What operators have decided, and is in force"),
    get("/v1/health", "health", &[], "Whether the router is well: a line for each check, the worst first"),
    get("/v1/events", "events", &[
        Parameter {
            name: "since_unix_ms",
            within: "",
            kind: ParameterKind::Number { default: 0, least: 0, most: LATEST_MS },
            about: "What happened from then on, milliseconds since 1970",
        },
        ANY_VIPA,
    ], "What happened in the cluster, from all routers that answer"),
    get("/v1/connections", "connections", &[
        Parameter {
            name: "limit",
            within: "",
            kind: ParameterKind::Number { default: DEFAULT_LIMIT as u64, least: 1, most: MOST_CONNECTIONS },
            about: "Connections, or rows of a count of them, listed at most",
        },
        Parameter { name: "vipa", within: "filter", kind: ParameterKind::OptionalAddress, about: "Of this VIPA alone" },
        Parameter { name: "client", within: "filter", kind: ParameterKind::OptionalAddress, about: "Of this client alone" },
        Parameter { name: "target", within: "filter", kind: ParameterKind::OptionalAddress, about: "At this target alone" },
        Parameter { name: "state", within: "filter", kind: ParameterKind::OptionalWord, about: "In this state alone, such as open" },
        Parameter { name: "count_by", within: "", kind: ParameterKind::OptionalWord, about: "Counted by target, state, client or service" },
    ], "Connections of the table, and which target each belongs to"),
    Operation {
        answer: "explanation",
        ..get("/v1/explain", "explain", &[
            Parameter { name: "vipa", within: "", kind: ParameterKind::Address, about: "The VIPA" },
            Parameter { name: "protocol", within: "connection", kind: ParameterKind::Word, about: "tcp or udp" },
            Parameter { name: "client", within: "connection", kind: ParameterKind::Word, about: "The client's address and port, such as 203.0.113.4:40000" },
            Parameter {
                name: "port",
                within: "connection",
                kind: ParameterKind::Number { default: 80, least: 1, most: 65_535 },
                about: "The port on the VIPA",
            },
        ], "What becomes of the next packet of a connection, and why")
    },
    get("/v1/drill", "drill", VIPA, "A takeover rehearsed: how long it would take, and what it would lose"),
    get("/v1/diff", "diff", VIPA, "Where the other routers' configurations of a VIPA differ"),
    Operation {
        fixed: &[("mode", "look")],
        ..get("/v1/audit", "audit", &[ANY_VIPA], "The connection table compared with what the targets hold")
    },
    Operation {
        verb: Verb::Post, path: "/v1/audit", id: "repair", ask: "audit", fixed: &[("mode", "repair")],
        input: Input::Body(&["vipa"]), answer: "audit",
        summary: "As reading it, and the table is made to agree with the targets",
    },
    Operation {
        verb: Verb::Post, path: "/v1/orders", id: "order", ask: "order", fixed: &[],
        input: Input::Body(&["order"]), answer: "done",
        summary: "Give an order: move, deactivate, quiesce, leave …; answered once it is carried out",
    },
    Operation {
        verb: Verb::Post, path: "/v1/reload", id: "reload", ask: "reload", fixed: &[],
        input: Input::Body(&["mode", "confirm_ms"]), answer: "reload",
        summary: "Take a changed configuration file up, or say what would change",
    },
    Operation {
        verb: Verb::Post, path: "/v1/confirm", id: "confirm", ask: "confirm", fixed: &[],
        input: Input::Body(&["undo"]), answer: "done",
        summary: "Keep a configuration that awaits its confirmation, or take it back",
    },
    Operation {
        verb: Verb::Post, path: "/v1/capture/start", id: "capture-start", ask: "capture-start", fixed: &[],
        input: Input::Body(&["filter"]), answer: "done",
        summary: "Begin to capture packets; one capture at a time",
    },
    Operation {
        verb: Verb::Post, path: "/v1/capture/read", id: "capture-read", ask: "capture-read", fixed: &[],
        input: Input::Body(&[]), answer: "captured",
        summary: "What was captured since this was last asked; who does not ask for five seconds ends it",
    },
    Operation {
        verb: Verb::Post, path: "/v1/capture/stop", id: "capture-stop", ask: "capture-stop", fixed: &[],
        input: Input::Body(&[]), answer: "done",
        summary: "End the capture",
    },
    Operation {
        verb: Verb::Post, path: "/v1/record", id: "record", ask: "record", fixed: &[],
        input: Input::Body(&["what"]), answer: "done",
        summary: "Write every event of this router to a file, or stop that",
    },
];

/// What a request takes.
#[cfg(test)]
fn role(request: &Request) -> ApiRole {
    if request.changes_something() { ApiRole::Operate } else { ApiRole::Read }
}

impl Verb {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
        }
    }
}

impl Operation {
    /// Whether a question without parameters, which many may ask at once.
    pub(crate) fn is_plain(&self) -> bool {
        self.verb == Verb::Get && matches!(self.input, Input::Query([]))
    }

    /// What it takes.
    pub(crate) const fn role(&self) -> ApiRole {
        match self.verb {
            Verb::Get => ApiRole::Read,
            Verb::Post => ApiRole::Operate,
        }
    }

    /// The admin socket's request for this query, or this body.
    pub(crate) fn request(&self, query: &str, body: &[u8]) -> Result<Request, Problem> {
        let mut fields = match self.input {
            Input::Query(parameters) => read_query(parameters, query)?,
            Input::Body(_) if !query.is_empty() => return Err(bad("this takes a body and no query")),
            Input::Body(names) => read_body(names, body)?,
        };
        fields.insert("ask".into(), self.ask.into());
        fields.extend(self.fixed.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        serde_json::from_value(Value::Object(fields)).map_err(|error| bad(error.to_string()))
    }
}

/// The operations of a path.
pub(crate) fn of_path(path: &str) -> impl Iterator<Item = &'static Operation> {
    OPERATIONS.iter().filter(move |operation| operation.path == path)
}

pub(crate) fn verb(method: &Method) -> Option<Verb> {
    match *method {
        Method::GET | Method::HEAD => Some(Verb::Get),
        Method::POST => Some(Verb::Post),
        _ => None,
    }
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn read_query(parameters: &[Parameter], query: &str) -> Result<Map<String, Value>, Problem> {
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let Some(parameter) = parameters.iter().find(|parameter| parameter.name == name) else {
            let known: Vec<_> = parameters.iter().map(|parameter| parameter.name).collect();
            let known =
                if known.is_empty() { "this takes none".into() } else { format!("there are: {}", known.join(", ")) };
            return Err(bad(format!("unknown parameter; {known}")));
        };
        let value = match parameter.kind {
            ParameterKind::Number { least, most, .. } => {
                let number = value.parse::<u64>().ok().filter(|number| (least..=most).contains(number));
                number.map(Value::from).ok_or_else(|| bad(format!("{name} must be a number from {least} to {most}")))?
            }
            ParameterKind::Address | ParameterKind::OptionalAddress => {
                let address = value.parse::<IpAddr>();
                let address = address.map_err(|_| bad(format!("{name} must be an IP address such as 192.0.2.10")))?;
                address.to_string().into()
            }
            ParameterKind::Word | ParameterKind::OptionalWord => value.as_ref().into(),
        };
        if into(&mut fields, parameter.within).insert(parameter.name.into(), value).is_some() {
            return Err(bad(format!("{name} is there twice")));
        }
    }
    for parameter in parameters {
        let fields = into(&mut fields, parameter.within);
        let missing = match parameter.kind {
            ParameterKind::Number { default, .. } => Value::from(default),
            ParameterKind::OptionalAddress | ParameterKind::OptionalWord => Value::Null,
            _ if fields.contains_key(parameter.name) => continue,
            ParameterKind::Address | ParameterKind::Word => {
                return Err(bad(format!("the parameter {} is missing", parameter.name)));
            }
        };
        fields.entry(parameter.name).or_insert(missing);
    }
    Ok(fields)
}

/// The object that a parameter is written into.
fn into<'f>(fields: &'f mut Map<String, Value>, within: &str) -> &'f mut Map<String, Value> {
    if within.is_empty() {
        return fields;
    }
    let object = fields.entry(within).or_insert_with(|| Value::Object(Map::new()));
    object.as_object_mut().expect("no request has a field and a parameter of one name")
}

fn read_body(names: &[&str], body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let fields: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| bad(format!("the body must be a JSON object with: {}; {error}", names.join(", "))))?;
    if fields.keys().any(|name| !names.contains(&name.as_str())) {
        return Err(bad(format!("the body has an unknown field; there are: {}", names.join(", "))));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use schemars::SchemaGenerator;

    use super::*;

    fn operation(id: &str) -> &'static Operation {
        OPERATIONS.iter().find(|operation| operation.id == id).unwrap()
    }

    fn problem(id: &str, query: &str, body: &str) -> String {
        operation(id).request(query, body.as_bytes()).unwrap_err().detail
    }

    #[test]
    fn every_request_of_the_admin_socket_has_an_operation() {
        let schema = SchemaGenerator::default().into_root_schema_for::<Request>();
        let variants = schema.get("oneOf").and_then(Value::as_array).unwrap();
        assert!(variants.len() > 10, "{variants:?}");
        for variant in variants {
            let ask = variant["properties"]["ask"]["const"].as_str().unwrap();
            assert!(OPERATIONS.iter().any(|operation| operation.ask == ask), "no operation asks {ask}");
        }
    }

    #[test]
    fn what_reads_and_what_changes_is_told_by_the_method() {
        let body = |id: &str| match id {
            "repair" => r#"{"vipa":null}"#,
            "order" => r#"{"order":{"takeback":{"vipa":"192.0.2.1"}}}"#,
            "reload" => r#"{"mode":"whole"}"#,
            "record" => r#"{"what":"stop"}"#,
            "confirm" => r#"{"undo":false}"#,
            "capture-start" => r#"{"filter":{"vipa":null,"fates":"","limit":10,"seconds":10}}"#,
            "capture-read" | "capture-stop" => "{}",
            _ => "",
        };
        for operation in OPERATIONS {
            let query = match operation.id {
                "drill" | "diff" => "vipa=192.0.2.1",
                "explain" => "vipa=192.0.2.1&protocol=tcp&client=203.0.113.4:40000&port=80",
                _ => "",
            };
            let request = operation.request(query, body(operation.id).as_bytes()).unwrap();
            assert_eq!(role(&request), operation.role(), "{}", operation.id);
        }
    }

    #[test]
    fn a_query_is_read_whole_or_refused_with_what_would_be_right() {
        let limit = |query| match operation("connections").request(query, b"") {
            Ok(Request::Connections { limit, filter, .. }) => (limit, filter.vipa),
            other => panic!("{other:?}"),
        };
        assert_eq!(limit(""), (20, None));
        assert_eq!(limit("limit=5&vipa=2001%3Adb8%3A%3A1"), (5, Some("2001:db8::1".parse().unwrap())));
        assert!(problem("connections", "limit=0", "").contains("from 1 to 10000"));
        assert!(problem("connections", "limit=1&limit=2", "").contains("twice"));
        assert!(problem("connections", "size=1", "").contains("there are: limit, vipa, client"));
        assert!(problem("status", "a=1", "").contains("this takes none"));
        assert!(problem("drill", "", "").contains("vipa is missing"));
        assert!(problem("drill", "vipa=here", "").contains("an IP address"));
    }

    #[test]
    fn a_body_is_read_whole_or_refused() {
        assert!(problem("order", "", "").contains("a JSON object with: order"));
        assert!(problem("order", "", "[]").contains("a JSON object with: order"));
        assert!(problem("order", "", r#"{"order":{"fly":{}}}"#).contains("unknown variant `fly`"));
        assert!(
            problem("order", "", r#"{"order":{"deactivate":{"vipa":"192.0.2.1"}}}"#).contains("missing field `force`")
        );
        assert!(problem("reload", "", r#"{"mode":"whole","ask":"order"}"#).contains("unknown field"));
        assert!(problem("reload", "mode=whole", "").contains("no query"));
    }
}
