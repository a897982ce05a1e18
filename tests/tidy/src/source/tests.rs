use super::*;

fn found(text: &str, pattern: &str) -> Vec<String> {
    Source::new("crates/x/src/lib.rs", text).lines_with(Part::Shipped, &[pattern]).collect()
}

#[test]
fn comments_and_texts_are_no_code() {
    let text = "// unsafe\n/* unsafe /* unsafe */ unsafe */\nlet a = \"unsafe \\\" unsafe\";\n/// unsafe\nlet b = r#\"un\" unsafe\"#;\n\
                let c = ('\\'', 'u', '\"', 'é', b'\\\\'); fn f<'unsafe_>() {}\nunsafe {}";
    assert_eq!(found(text, "unsafe"), ["crates/x/src/lib.rs:7"]);
}

#[test]
fn a_word_is_found_only_whole_unless_its_end_is_open() {
    assert_eq!(found("let unsafely = not_unsafe;", "unsafe"), Vec::<String>::new());
    assert_eq!(found("let x = AtomicU64::new(0);", "Atomic*").len(), 1);
    assert_eq!(found("let x = NonAtomic::new(0);", "Atomic*").len(), 0);
}

#[test]
fn a_grouped_import_counts_as_written_out() {
    let text = "use std::{\n    fmt,\n    net::{IpAddr, TcpStream},\n    fs,\n};\n";
    assert_eq!(found(text, "std::fs"), ["crates/x/src/lib.rs:1"]);
    assert_eq!(found(text, "std::net::Tcp*"), ["crates/x/src/lib.rs:1"]);
    assert_eq!(found(text, "std::io").len(), 0);
}

#[test]
fn tests_are_told_from_what_is_shipped() {
    let text = "#[cfg(test)]\nmod tests {\n    use std::fs;\n    fn f() { [1, 2]; }\n}\n#[cfg(test)]\nmod other;\nuse std::io;\n";
    assert_eq!(found(text, "std::fs").len(), 0);
    assert_eq!(found(text, "std::io"), ["crates/x/src/lib.rs:8"]);
    let source = Source::new("crates/x/src/lib.rs", text);
    assert_eq!(source.lines_with(Part::All, &["std::fs"]).count(), 1);
    for path in
        ["crates/x/src/a/tests.rs", "crates/x/tests/a.rs", "crates/x/examples/a.rs", "crates/x/src/a/tests/b.rs"]
    {
        assert_eq!(Source::new(path, "use std::fs;").lines_with(Part::Shipped, &["std::fs"]).count(), 0, "{path}");
    }
    let lab = Source::new("tests/sim/src/lib.rs", "use std::fs;");
    assert_eq!(lab.lines_with(Part::Shipped, &["std::fs"]).count(), 1, "a package of tests/ ships its src");
}
