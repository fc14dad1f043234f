//! Versions that lock files choose, where cargo may choose some that do not compile together.

use std::fs;

use super::{report, root};

const LOCK_FILES: [&str; 3] = ["Cargo.lock", "perf/peers/Cargo.lock", "tests/fuzz/Cargo.lock"];

/// bindgen (of aws-lc's FIPS module) hands syntax trees of syn to prettyplease, but asks for ranges of versions of both, which cargo may choose
/// apart: then it does not compile.
fn syntax_trees_of_two_versions(lock: &str) -> Vec<String> {
    let packages: Vec<Vec<&str>> = lock
        .split("[[package]]")
        .map(|package| package.split('"').skip(1).step_by(2).collect())
        .collect();
    // `name`, or `name version` where there are several.
    let is = |package: &[&str], what: &str| {
        let mut words = what.split(' ');
        package.first() == words.next().as_ref()
            && words
                .next()
                .is_none_or(|version| package.get(1) == Some(&version))
    };
    let asks_for = |package: &[&str], name: &str| {
        let of_name = |text: &&&str| text.split(' ').next() == Some(name);
        package
            .iter()
            .skip(4)
            .find(of_name)
            .map(|text| (*text).to_owned())
    };
    let mut found = Vec::new();
    for bindgen in packages.iter().filter(|package| is(package, "bindgen")) {
        let (syn, formatter) = (asks_for(bindgen, "syn"), asks_for(bindgen, "prettyplease"));
        let Some(formatter) = formatter else { continue };
        let of_formatter = packages.iter().find(|package| is(package, &formatter));
        let of_formatter = of_formatter.and_then(|package| asks_for(package, "syn"));
        if of_formatter != syn {
            found.push(format!(
                "bindgen {}: {syn:?}, but its {formatter} {of_formatter:?}",
                bindgen[1]
            ));
        }
    }
    found
}

#[test]
fn what_formats_bindings_takes_the_syntax_trees_that_it_gets() {
    let mut found = Vec::new();
    for path in LOCK_FILES {
        let lock = fs::read_to_string(root().join(path)).unwrap();
        assert!(
            lock.contains("name = \"bindgen\""),
            "{path}: no bindgen any more: take this test out"
        );
        let of_file = syntax_trees_of_two_versions(&lock);
        found.extend(
            of_file
                .iter()
                .map(|what| format!("{path}: {what}: choose versions with the same")),
        );
    }
    report(found);
}

#[test]
fn syntax_trees_of_two_versions_are_found() {
    let package = |name: &str, version: &str, dependencies: &str| {
        format!(
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"s\"\nchecksum = \"c\"\ndependencies = [\n{dependencies}]\n"
        )
    };
    let formatters = package("prettyplease", "0.2.37", "\"syn 2.0.0\",\n")
        + &package("prettyplease", "0.3.0", "\"syn 3.0.0\",\n");
    let lock = |formatter: &str, syn: &str| {
        let dependencies = format!(" \"log\",\n \"prettyplease {formatter}\",\n \"syn {syn}\",\n");
        syntax_trees_of_two_versions(&(package("bindgen", "0.73.2", &dependencies) + &formatters))
    };
    assert_eq!(lock("0.3.0", "3.0.0"), [""; 0]);
    assert_eq!(lock("0.2.37", "2.0.0"), [""; 0]);
    assert_eq!(lock("0.2.37", "3.0.0").len(), 1);
}
