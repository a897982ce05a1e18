//! The house as it stands keeps to its plan. A failure names the place; the plan is in `src/plan.rs`.

use std::sync::LazyLock;

use vipa_tidy::House;

static HOUSE: LazyLock<House> = LazyLock::new(House::open);

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n  {}\n", complaints.join("\n  "));
}

#[test]
fn every_room_is_in_the_plan_under_a_noun() {
    assert_none(&vipa_tidy::rooms_are_planned(&HOUSE));
}

#[test]
fn arrows_between_rooms_are_those_of_the_plan() {
    assert_none(&vipa_tidy::arrows_are_allowed(&HOUSE));
}

#[test]
fn no_package_depends_on_what_it_never_names() {
    assert_none(&vipa_tidy::dependencies_are_used(&HOUSE));
}

#[test]
fn the_plans_arrows_point_only_down() {
    assert_none(&vipa_tidy::arrows_point_down());
}

#[test]
fn architecture_md_tells_the_plan() {
    assert_none(&vipa_tidy::page_tells_the_plan(&HOUSE));
}

#[test]
fn every_file_that_a_page_names_exists() {
    assert_none(&vipa_tidy::named_files_exist(&HOUSE));
}

#[test]
fn every_page_is_a_chapter_of_the_book() {
    assert_none(&vipa_tidy::pages_are_chapters(&HOUSE));
}

#[test]
fn unsafe_stands_only_where_it_is_argued_for() {
    assert_none(&vipa_tidy::danger_is_confined(&HOUSE));
}

#[test]
fn atomics_are_named_only_in_sync_and_flow() {
    assert_none(&vipa_tidy::atomics_are_confined(&HOUSE));
}

#[test]
fn pure_rooms_touch_no_clock_socket_file_thread_or_chance() {
    assert_none(&vipa_tidy::pure_rooms_are_pure(&HOUSE));
}

#[test]
fn workers_neither_lock_nor_log() {
    assert_none(&vipa_tidy::workers_do_not_wait(&HOUSE));
}

#[test]
fn files_are_replaced_durably() {
    assert_none(&vipa_tidy::replaced_files_are_durable(&HOUSE));
}

#[test]
fn files_are_one_story_long() {
    assert_none(&vipa_tidy::files_are_short(&HOUSE));
}

#[test]
fn no_two_public_types_have_one_name() {
    assert_none(&vipa_tidy::public_types_have_names_of_their_own(&HOUSE));
}

#[test]
fn a_replaced_name_does_not_come_back() {
    assert_none(&vipa_tidy::replaced_names_stay_away(&HOUSE));
}
