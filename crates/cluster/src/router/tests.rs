mod bench;
mod stories;
