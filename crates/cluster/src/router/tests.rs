mod bench;
mod orders;
mod stories;
mod table;
