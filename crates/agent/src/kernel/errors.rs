//! Errors that keep the kernel's sockets from being followed.

use std::io;

use super::ring::RingError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    #[error("cannot read the kernel's socket tables: {0}")]
    Diag(#[from] io::Error),
    #[error("cannot enter the network namespace {name}: {source}; the agent needs CAP_SYS_ADMIN for agent.namespaces")]
    Namespace { name: String, source: io::Error },
    #[error("{0}; agent.observe = \"diag\" does without BPF")]
    Ring(#[from] RingError),
    #[error("the kernel does not name network namespaces: {0}; agent.observe = \"diag\" does without BPF")]
    Cookie(#[source] io::Error),
}

/// Why the thread has nothing more to do.
pub(super) struct Over;

/// A failure, or the end of the thread's work.
pub(super) enum Stop {
    Over,
    Failed(io::Error),
}

impl From<Over> for Stop {
    fn from(Over: Over) -> Self {
        Self::Over
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<RingError> for Stop {
    fn from(error: RingError) -> Self {
        Self::Failed(io::Error::other(error))
    }
}
