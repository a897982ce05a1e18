mod bench;
mod stories;
mod table;
