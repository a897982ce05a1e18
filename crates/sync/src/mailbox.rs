//! A bounded letter box for any number of senders and receivers, none of whom ever waits.

use crossbeam::queue::ArrayQueue;

use crate::Counter;

/// Bounded and lock-free; what does not fit goes back to its sender and is counted.
pub struct Mailbox<T> {
    letters: ArrayQueue<T>,
    refused: Counter,
}

impl<T> Mailbox<T> {
    /// Holds at most `capacity` letters, which must not be zero.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { letters: ArrayQueue::new(capacity), refused: Counter::new() }
    }

    /// Puts `letter` in, or gives it back when the box is full.
    pub fn try_send(&self, letter: T) -> Result<(), T> {
        self.letters.push(letter).inspect_err(|_| self.refused.add(1))
    }

    /// The oldest letter, if there is one.
    pub fn try_receive(&self) -> Option<T> {
        self.letters.pop()
    }

    /// Letters given back to their senders so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.read()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    #[must_use]
    pub fn capacity(&self) -> usize {
        self.letters.capacity()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn letters_come_out_in_the_order_they_went_in() {
        let mailbox = Mailbox::new(3);
        for letter in 1..=3 {
            mailbox.try_send(letter).unwrap();
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
