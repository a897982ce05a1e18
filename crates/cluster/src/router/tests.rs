mod bench;
mod no_quorum;
mod orders;
mod stories;
mod table;
