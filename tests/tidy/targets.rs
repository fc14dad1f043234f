//! Programs of the workspace: cargo writes those of a kind into one folder, and of two with one name the one that is built last stays.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{cargo, report};

/// Names that several packages give to a program of one kind, as cargo's metadata tells.
fn shared_names(metadata: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut programs = BTreeMap::<_, Vec<String>>::new();
    for package in list(&metadata["packages"]) {
        for target in list(&package["targets"]) {
            let kind = target["kind"][0].as_str().unwrap_or_default().to_owned();
            let [name, source] = [&target["name"], &target["src_path"]]
                .map(|text| text.as_str().unwrap_or_default().to_owned());
            if kind == "bin" || kind == "example" {
                programs.entry((kind, name)).or_default().push(source);
            }
        }
    }
    programs
        .into_iter()
        .filter(|(_, sources)| sources.len() > 1)
        .map(|((kind, name), sources)| {
            format!("{kind} {name}: give each another name: {}", sources.join(", "))
        })
        .collect()
}

#[test]
fn no_two_programs_have_one_name() {
    let metadata = cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    assert!(metadata.to_string().contains("ringperf"), "{metadata}");
    report(shared_names(&metadata));
}

#[test]
fn programs_with_one_name_are_found() {
    let package = |kind, source| serde_json::json!({ "targets": [{ "name": "serve", "kind": [kind], "src_path": source }] });
    let of = |packages: [Value; 2]| shared_names(&serde_json::json!({ "packages": packages }));
    assert_eq!(
        of([package("example", "a/serve.rs"), package("example", "b/serve.rs")]),
        ["example serve: give each another name: a/serve.rs, b/serve.rs"]
    );
    // A program and an example lie in different folders, and tests have a hash in their names.
    assert_eq!(
        of([package("example", "a/serve.rs"), package("bin", "b/serve.rs")]),
        [""; 0]
    );
    assert_eq!(
        of([package("test", "a/serve.rs"), package("test", "b/serve.rs")]),
        [""; 0]
    );
}
