mod bench;
mod groups;
mod model;
mod no_quorum;
mod orders;
mod stories;
mod table;
mod voters;
