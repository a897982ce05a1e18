//! Errors as problem details (RFC 9457).

use hyper::{
    Response, StatusCode,
    header::{self, HeaderValue},
};
use serde_json::json;
use vipa_protocol::admin::VERSION;

use crate::service::{Body, body};

/// What went wrong with a request, and what its sender can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// A sentence.
    pub(crate) detail: String,
    /// When it is worth trying again, seconds.
    pub(crate) retry_after: Option<u64>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after: None }
    }

    pub(crate) fn retry(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(crate) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "vipad is stopping").retry(5)
    }
}

impl Problem {
    pub(crate) fn into_response(self) -> Response<Body> {
        let Self { status, detail, retry_after } = self;
        // The type is left out: "about:blank" says that the status says it all (§4.2.1).
        let title = status.canonical_reason().unwrap_or("Error");
        let text = json!({ "version": VERSION, "status": status.as_u16(), "title": title, "detail": detail });
        let mut response = Response::new(body(text.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
