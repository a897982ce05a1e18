//! `[metrics]`.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    problems::Problems,
    read::{Section, parsed},
};

/// `[metrics]`: where Prometheus reads how this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// `None`: nowhere.
    pub listen: Option<MetricsListen>,
}

/// Where metrics are served over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsListen {
    Tcp(SocketAddr),
    /// The path of a socket.
    Unix(PathBuf),
}

const WHAT: &str = "an IP address and a port such as \"127.0.0.1:9781\", or \"unix:\" and a whole path";

impl FromStr for MetricsListen {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix("unix:") {
            Some(path) if Path::new(path).is_absolute() => Ok(Self::Unix(path.into())),
            Some(_) => Err(()),
            None => text.parse().map(Self::Tcp).map_err(|_| ()),
        }
    }
}

impl fmt::Display for MetricsListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(super) fn read_metrics(problems: &mut Problems, mut section: Section<'_>) -> Option<Metrics> {
    let listen = section.optional(problems, "listen", parsed::<MetricsListen>(WHAT));
    section.finish(problems);
    Some(Metrics { listen: listen?.map(|listen| listen.value) })
}
