//! One request: who asks, whether it may, what it gets.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request as HttpRequest, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderMap, HeaderValue},
};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, watch};
use vipa_model::{config::Config, printable};
use vipa_protocol::admin::{Answer, Request, Said, Versioned};
use vipa_transport::clients::Turn;

use crate::{
    AdminHandler, ApiLimits,
    access::Client,
    cache::Cache,
    limits::Rates,
    openapi,
    operations::{self, OPERATIONS, Operation, Verb},
    page,
    problem::Problem,
};

/// Questions that are on their way to control at one time. Its queue holds 16 of everybody: `vipactl` finds room in it always.
const QUESTIONS: usize = 4;
/// Orders under way at one time.
const ORDERS: usize = 8;
/// Sentences of progress that are kept of one order; further ones are left out.
const MOST_PROGRESS: usize = 64;
/// Orders of one client a minute that are refused for want of its role, and logged. Further ones are refused in silence.
const LOGGED_REFUSALS: u32 = 6;
/// Longest order that is logged, characters.
const LOGGED_ORDER: usize = 512;

pub(crate) type Body = Full<Bytes>;

pub(crate) fn body(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
}

/// What all connections share.
pub(crate) struct Service {
    pub(crate) control: AdminHandler,
    pub(crate) configs: watch::Receiver<Arc<Config>>,
    pub(crate) limits: ApiLimits,
    pub(crate) page: bool,
    cache: Cache,
    questions: Arc<Semaphore>,
    orders: Arc<Semaphore>,
    rates: Rates<Client>,
    refusals: Rates<Client>,
    description: Bytes,
}

/// A connection's end of the service.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) turn: Turn,
    /// Requests name a host that is this one, so that a foreign page whose name was made to mean this host cannot ask (DNS rebinding).
    pub(crate) host: HostRule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostRule {
    Any,
    Local,
}

impl Service {
    pub(crate) fn new(
        control: AdminHandler,
        configs: watch::Receiver<Arc<Config>>,
        limits: ApiLimits,
        page: bool,
    ) -> Self {
        let plain = OPERATIONS.iter().filter(|operation| operation.is_plain()).map(|operation| operation.ask);
        Self {
            control,
            configs,
            limits,
            page,
            cache: Cache::new(plain),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            orders: Arc::new(Semaphore::new(ORDERS)),
            rates: Rates::new(f64::from(limits.rate), limits.burst),
            refusals: Rates::new(f64::from(LOGGED_REFUSALS) / 60.0, LOGGED_REFUSALS),
            description: openapi::description().into(),
        }
    }

    /// Answers one request; never fails.
    pub(crate) async fn serve(self: Arc<Self>, session: Session, request: HttpRequest<Incoming>) -> Response<Body> {
        session.turn.of_server();
        let is_page = page::is_path(request.uri().path());
        let answered = Arc::clone(&self).answer(&session, request).await;
        let mut response = answered.unwrap_or_else(Problem::into_response);
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
        if !is_page {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        session.turn.of_client();
        response
    }

    async fn answer(
        self: Arc<Self>,
        session: &Session,
        request: HttpRequest<Incoming>,
    ) -> Result<Response<Body>, Problem> {
        let client = &session.client;
        if !self.rates.take(client, Instant::now()) {
            let detail = format!("more than {} requests a second; slow down", self.limits.rate);
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry(1));
        }
        check_origin(session.host, &request)?;
        let config = Arc::clone(&self.configs.borrow());
        let Some(role) = client.role(&config).await else {
            let detail = format!("{client} has no role here; name it in [api] of the router's configuration");
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        };
        let (parts, incoming) = request.into_parts();
        let path = parts.uri.path();
        if let Some(file) = page::file(path).filter(|_| self.page) {
            return if matches!(parts.method, Method::GET | Method::HEAD) {
                Ok(file.response(&parts.headers))
            } else {
                Err(wrong_method(["GET"]))
            };
        }
        if path == "/v1/openapi.json" {
            return match operations::verb(&parts.method) {
                Some(Verb::Get) => Ok(json_response(self.description.clone())),
                _ => Err(wrong_method(["GET"])),
            };
        }
        let verb = operations::verb(&parts.method);
        let Some(operation) = operations::of_path(path).find(|operation| Some(operation.verb) == verb) else {
            let known: BTreeSet<_> = operations::of_path(path).map(|operation| operation.verb.name()).collect();
            return Err(if known.is_empty() { not_found(self.page) } else { wrong_method(known) });
        };
        let query = parts.uri.query().unwrap_or_default();
        if role < operation.role() {
            if operation.verb == Verb::Post && self.refusals.take(client, Instant::now()) {
                audit(client, operation.id, "refused: it has the role read");
            }
            let detail = format!("{client} has the role {}; this takes the role operate", role.name());
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        let text = match operation.verb {
            Verb::Get => Bytes::new(),
            Verb::Post => self.read_body(&parts.headers, incoming).await?,
        };
        let request = operation.request(query, &text)?;
        match operation.verb {
            Verb::Get => self.question(client, operation, request).await,
            Verb::Post => self.order(client, request).await,
        }
    }

    async fn read_body(&self, headers: &HeaderMap, incoming: Incoming) -> Result<Bytes, Problem> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.split(';').next().map(str::trim) != Some("application/json") {
            // A page of another origin cannot send this type without being allowed to first (CORS), and nobody is.
            let detail = "the body must be JSON: Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let ApiLimits { body, body_bytes, .. } = self.limits;
        let reading = tokio::time::timeout(body, Limited::new(incoming, body_bytes).collect()).await;
        let late = || Problem::new(StatusCode::REQUEST_TIMEOUT, format!("the body was not there within {body:?}"));
        let collected = reading.map_err(|_| late())?.map_err(|error| {
            if error.is::<LengthLimitError>() {
                let detail = format!("the body has more than {body_bytes} bytes");
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
            } else {
                Problem::new(StatusCode::BAD_REQUEST, "the body could not be read")
            }
        })?;
        Ok(collected.to_bytes())
    }

    async fn question(
        &self,
        client: &Client,
        operation: &Operation,
        request: Request,
    ) -> Result<Response<Body>, Problem> {
        let (control, questions, limit) = (Arc::clone(&self.control), Arc::clone(&self.questions), self.limits.answer);
        let operator = client.operator();
        let asking = async move {
            let busy = || {
                let detail = format!("the router did not answer within {limit:?}; it is busy, or stands still");
                Problem::new(StatusCode::GATEWAY_TIMEOUT, detail).retry(5)
            };
            let asked = async {
                let _place = questions.acquire_owned().await.map_err(|_| Problem::stopping())?;
                let (progress, _unread) = mpsc::channel(1);
                control(request, operator, progress).await.ok_or_else(Problem::stopping)
            };
            let answer = tokio::time::timeout(limit, asked).await.map_err(|_| busy())??;
            let answer = match answer {
                Answer::Error(sentence) => return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, sentence)),
                Answer::NotFound(sentence) => return Err(Problem::new(StatusCode::NOT_FOUND, sentence)),
                answer => answer,
            };
            // That of a thousand VIPAs is a megabyte or more.
            let text = tokio::task::spawn_blocking(|| serde_json::to_vec(&Versioned::new(answer)));
            let failed = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written");
            Ok(Bytes::from(text.await.map_err(|_| failed())?.map_err(|_| failed())?))
        };
        let text = match operation.is_plain() {
            true => self.cache.get(operation.ask, asking).await?,
            false => asking.await?,
        };
        Ok(json_response(text))
    }

    /// Gives an order, and writes down what became of it. It goes on when its client leaves.
    async fn order(self: Arc<Self>, client: &Client, request: Request) -> Result<Response<Body>, Problem> {
        let busy = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{ORDERS} orders are under way")).retry(5);
        let place = Arc::clone(&self.orders).try_acquire_owned().map_err(|_| busy())?;
        let (service, client) = (Arc::clone(&self), client.clone());
        let giving = tokio::spawn(async move {
            let _place = place;
            let what = serde_json::to_string(&request).unwrap_or_default();
            let outcome = service.carry_out(&client, request).await;
            let said = match &outcome {
                Ok((_, sentence)) => format!("done: {sentence}"),
                Err(Problem { detail, .. }) => format!("not done: {detail}"),
            };
            audit(&client, &what, &said);
            service.cache.forget().await;
            outcome.map(|(text, _)| text)
        });
        let text = giving.await.map_err(|_| Problem::stopping())??;
        Ok(json_response(text))
    }

    /// The answer as it is sent, and in a sentence.
    async fn carry_out(&self, client: &Client, request: Request) -> Result<(Vec<u8>, String), Problem> {
        let limit = self.limits.order;
        let (progress, mut news) = mpsc::channel::<Said>(8);
        let mut answer = (self.control)(request, client.operator(), progress);
        let mut told = Vec::new();
        let end = async {
            loop {
                tokio::select! {
                    biased;
                    Some(Said { sentence, .. }) = news.recv() => {
                        if told.len() < MOST_PROGRESS {
                            told.push(sentence);
                        }
                    }
                    answer = &mut answer => return answer,
                }
            }
        };
        let Ok(answer) = tokio::time::timeout(limit, end).await else {
            let detail = format!("not carried out within {limit:?}, and still under way; look at /v1/decisions");
            return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, detail));
        };
        let sentence = match answer.as_ref().ok_or_else(Problem::stopping)? {
            Answer::Error(sentence) => return Err(Problem::new(StatusCode::CONFLICT, sentence.clone())),
            Answer::NotFound(sentence) => return Err(Problem::new(StatusCode::NOT_FOUND, sentence.clone())),
            Answer::Done(Said { sentence, .. }) => sentence.clone(),
            _ => "answered".into(),
        };
        let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written");
        let mut document = serde_json::to_value(answer.map(Versioned::new)).map_err(failed)?;
        document["progress"] = json!(told);
        Ok((document.to_string().into_bytes(), sentence))
    }
}

/// One line for each order: who gave it, from where, what it was, and what became of it.
fn audit(client: &Client, order: &str, outcome: &str) {
    let (order, outcome) = (printable(order, LOGGED_ORDER), printable(outcome, LOGGED_ORDER));
    tracing::info!(target: "vipa_web::audit", who = %client, from = %client.place(), %order, %outcome, "an order by the API");
}

fn json_response(text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn not_found(has_page: bool) -> Problem {
    let page = if has_page { "; the page is at /" } else { "; the page is off (`page = true` in [api])" };
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing here; /v1/openapi.json lists what there is{page}"))
}

fn wrong_method(known: impl IntoIterator<Item = &'static str>) -> Problem {
    let known: Vec<_> = known.into_iter().map(str::to_uppercase).collect();
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("here there is {}", known.join(" and ")))
}

/// A browser says where a request comes from; what comes from a page of somebody else is refused.
fn check_origin<T>(rule: HostRule, request: &HttpRequest<T>) -> Result<(), Problem> {
    let header = |name| request.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    if rule == HostRule::Local && !header(header::HOST).is_some_and(is_local_host) {
        let detail = "Host must be localhost or a loopback address, as in http://localhost/v1/status";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail));
    }
    match header(header::HeaderName::from_static("sec-fetch-site")) {
        None | Some("same-origin" | "none") => Ok(()),
        // Whoever follows a link to the page.
        Some(_) if request.method() == Method::GET && page::is_path(request.uri().path()) => Ok(()),
        Some(_) => Err(Problem::new(StatusCode::FORBIDDEN, "a page of another origin may not ask")),
    }
}

fn is_local_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> HttpRequest<()> {
        let mut builder = HttpRequest::builder().method(method).uri(path);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn a_name_that_is_not_this_host_is_refused_where_everybody_here_may_ask() {
        for host in ["localhost", "localhost:9780", "127.0.0.1:9780", "127.8.8.8", "[::1]:9780", "[::1]"] {
            assert_eq!(
                check_origin(HostRule::Local, &request("GET", "/v1/status", &[("host", host)])),
                Ok(()),
                "{host}"
            );
        }
        for host in ["evil.example", "evil.example:9780", "localhost.evil.example", "192.0.2.1", "[2001:db8::1]", ""] {
            let asked = request("GET", "/v1/status", &[("host", host)]);
            let problem = check_origin(HostRule::Local, &asked).unwrap_err();
            assert_eq!(problem.status, StatusCode::MISDIRECTED_REQUEST, "{host}");
            assert_eq!(
                check_origin(HostRule::Any, &asked),
                Ok(()),
                "where clients show certificates, names are theirs"
            );
        }
        assert!(check_origin(HostRule::Local, &request("GET", "/v1/status", &[])).is_err());
    }

    #[test]
    fn a_page_of_another_origin_may_link_to_the_page_and_nothing_else() {
        let foreign = [("sec-fetch-site", "cross-site")];
        assert_eq!(check_origin(HostRule::Any, &request("GET", "/", &foreign)), Ok(()));
        assert!(check_origin(HostRule::Any, &request("GET", "/v1/status", &foreign)).is_err());
        assert!(check_origin(HostRule::Any, &request("POST", "/", &foreign)).is_err());
        assert!(
            check_origin(HostRule::Any, &request("GET", "/v1/status", &[("sec-fetch-site", "same-site")])).is_err()
        );
        assert_eq!(
            check_origin(HostRule::Any, &request("POST", "/v1/orders", &[("sec-fetch-site", "same-origin")])),
            Ok(())
        );
    }
}
