//! What went wrong, as one sentence.

use std::error::Error;

/// An error with its causes, each once: many errors name their cause in the middle of their own words, where it reads best.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("cannot listen on {address}: {source}; is it free?")]
        Listen { address: &'static str, source: io::Error },
        #[error("the file is of no use")]
        File(#[source] io::Error),
        #[error("{0}")]
        Whole(#[from] Box<Self>),
    }

    #[test]
    fn a_cause_that_is_named_already_is_not_named_again() {
        let taken = || io::Error::other("address in use");
        let listen = || Failure::Listen { address: "192.0.2.1:7", source: taken() };
        assert_eq!(with_causes(&listen()), "cannot listen on 192.0.2.1:7: address in use; is it free?");
        assert_eq!(with_causes(&Failure::Whole(Box::new(listen()))), with_causes(&listen()));
        assert_eq!(with_causes(&Failure::File(taken())), "the file is of no use: address in use");
    }
}
