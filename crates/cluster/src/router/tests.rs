mod bench;
mod model;
mod no_quorum;
mod orders;
mod stories;
mod table;
