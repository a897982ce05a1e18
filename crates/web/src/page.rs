//! The web page: three files within the program, and nothing from anywhere else.

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};

use crate::service::{Body, body};

/// Content Security Policy, level 3: what is not named is not loaded, not even from here.
pub(crate) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One of the page's files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const FILES: [File; 4] = [
    File { path: "/", kind: "text/html; charset=utf-8", text: include_str!("page/index.html") },
    File { path: "/page.css", kind: "text/css; charset=utf-8", text: include_str!("page/page.css") },
    File { path: "/page.js", kind: "text/javascript; charset=utf-8", text: include_str!("page/page.js") },
    File { path: "/icon.svg", kind: "image/svg+xml", text: include_str!("page/icon.svg") },
];

pub(crate) fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

pub(crate) fn is_path(path: &str) -> bool {
    file(path).is_some()
}

impl File {
    /// The file, or word that the browser's copy is the same (RFC 9110 §13.1.2).
    pub(crate) fn response(&self, headers: &HeaderMap) -> Response<Body> {
        let tag = self.tag();
        let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let mut response =
            Response::new(body(if known { Bytes::new() } else { Bytes::from_static(self.text.as_bytes()) }));
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        response
    }

    /// Changes with the file: its CRC-32 (IEEE 802.3) and length.
    fn tag(&self) -> String {
        let crc = self.text.bytes().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        });
        format!("\"{:08x}-{:x}\"", !crc, self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_that_of_the_content() {
        let check = File { path: "/", kind: "text/plain", text: "123456789" };
        assert_eq!(check.tag(), "\"cbf43926-9\"", "the check value of CRC-32");
    }

    #[test]
    fn the_page_names_no_other_host_and_makes_no_markup_of_texts() {
        for file in FILES {
            let foreign = file.text.match_indices("//").filter(|(at, _)| {
                let before = &file.text[..*at];
                before.ends_with("http:") || before.ends_with("https:")
            });
            // Names of namespaces are no addresses.
            let foreign: Vec<_> = foreign.filter(|(at, _)| !file.text[*at..].starts_with("//www.w3.org/")).collect();
            assert!(foreign.is_empty(), "{}: {foreign:?}", file.path);
            for unsafe_way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=\""] {
                assert!(!file.text.contains(unsafe_way), "{} has {unsafe_way}", file.path);
            }
        }
    }
}
