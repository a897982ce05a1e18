//! A bounded mailbox for any number of senders and receivers, none of whom ever waits.

use crossbeam::queue::ArrayQueue;

use crate::Counter;

/// Bounded and lock-free; what does not fit goes back to its sender and is counted.
pub struct Mailbox<T> {
    messages: ArrayQueue<T>,
    refused: Counter,
}

impl<T> Mailbox<T> {
    /// Holds at most `capacity` messages, which must not be zero.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { messages: ArrayQueue::new(capacity), refused: Counter::new() }
    }

    /// Puts `message` in, or gives it back when the box is full.
    pub fn try_send(&self, message: T) -> Result<(), T> {
        self.messages.push(message).inspect_err(|_| self.refused.add(1))
    }

    /// The oldest message, if there is one.
    pub fn try_receive(&self) -> Option<T> {
        self.messages.pop()
    }

    /// Letters given back to their senders so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.read()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    #[must_use]
    pub fn capacity(&self) -> usize {
        self.messages.capacity()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn letters_come_out_in_the_order_they_went_in() {
        let mailbox = Mailbox::new(3);
        for message in 1..=3 {
            mailbox.try_send(message).unwrap();
        }
        assert_eq!([mailbox.try_receive(), mailbox.try_receive(), mailbox.try_receive()], [Some(1), Some(2), Some(3)]);
        assert!(mailbox.is_empty());
        assert_eq!(mailbox.try_receive(), None);
    }

    #[test]
    fn a_full_mailbox_gives_the_letter_back_and_counts_it() {
        let mailbox = Mailbox::new(1);
        mailbox.try_send("kept").unwrap();
        assert_eq!(mailbox.try_send("refused"), Err("refused"));
        assert_eq!((mailbox.refused(), mailbox.len(), mailbox.capacity()), (1, 1, 1));
        assert_eq!(mailbox.try_receive(), Some("kept"));
    }
}
