mod attacks;
mod bench;
mod groups;
mod model;
mod no_quorum;
mod orders;
mod paths;
mod schedule;
mod stories;
mod table;
mod voters;

use schedule::assert_deadline;
