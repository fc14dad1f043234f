//! House rules that the compiler does not know: which layer may use which, where `unsafe` may stand, what may not be left behind.
//!
//! A breach is told as `path:line: rule: what to do instead`.

mod imports;
mod lock_files;
mod operating;
mod targets;
mod walk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::imports::{CRATES, Imports};

/// Layers of the engine, and what each may use beside itself. Mechanisms do not know each other.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("wire", &["base"]),
    ("crypto", &["base", "wire"]),
    ("recovery", &["base", "wire"]),
    ("congestion", &["base"]),
    ("path", &["base", "wire"]),
    ("streams", &["base", "wire"]),
    ("datagrams", &[]),
    (
        "connection",
        &[
            "base",
            "wire",
            "crypto",
            "recovery",
            "congestion",
            "path",
            "streams",
            "datagrams",
        ],
    ),
];

/// Things that are not left behind in libraries, and what to do instead.
const LEFT_BEHIND: &[(&str, &str)] = &[
    ("todo!(", "finish it"),
    ("unimplemented!(", "finish it"),
    ("dbg!(", "take it out"),
    ("println!(", "use tracing"),
    (
        "SystemTime::now",
        "only the worker's address tokens know calendar time",
    ),
    ("Instant::now()", "take the time as a parameter"),
    ("std::thread::sleep", "libraries do not wait"),
];

struct Source {
    path: PathBuf,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package lies below the root")
}

fn sources(directory: &str) -> Vec<Source> {
    fn walk(directory: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source {
                    path: path.strip_prefix(root()).unwrap().to_owned(),
                    text,
                });
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(directory), &mut found);
    assert!(!found.is_empty());
    found
}

/// Lines of code: without comments, and up to the tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .take_while(|(_, line)| !line.contains("#[cfg(test)]") && !line.contains("#[cfg(all(test,"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn is_test(path: &Path) -> bool {
    path.iter().any(|part| part == "tests" || part == "tests.rs")
}

/// Examples and benchmarks beside a library: they may print, and read clocks.
fn is_program(path: &Path) -> bool {
    path.iter().any(|part| part == "examples" || part == "benches")
}

/// The top module below `prefix` that each mention in a line names.
fn mentions<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix).map(move |(at, _)| {
        let rest = &line[at + prefix.len()..];
        &rest[..rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len())]
    })
}

fn layer_breaches(path: &Path, text: &str) -> Vec<String> {
    let mut parts = path.iter().skip(3);
    let layer = parts
        .next()
        .unwrap()
        .to_str()
        .unwrap()
        .trim_end_matches(".rs")
        .to_owned();
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        return if layer == "lib" {
            vec![]
        } else {
            vec![format!("{}: layers: add {layer} to the table", path.display())]
        };
    };
    let mut breaches = Vec::new();
    for (line, text) in code(text) {
        for used in mentions(text, "crate::") {
            if LAYERS.iter().any(|(name, _)| *name == used) && used != layer && !allowed.contains(&used) {
                breaches.push(format!(
                    "{}:{line}: layers: {layer} must not use {used}",
                    path.display()
                ));
            }
        }
    }
    breaches
}

fn unsafe_breaches(path: &Path, text: &str) -> Vec<String> {
    // The crate io-uring lets no application enter a read without it: the example that shows how has such a file too. AES-GCM in vectors goes
    // into code for processors that have been asked.
    let may_have = [
        "datapath",
        "src/ringway/examples",
        "src/engine/src/crypto/aes_gcm",
    ]
    .iter()
    .any(|place| path.starts_with(place));
    if may_have && path.file_name().is_some_and(|name| name == "sys.rs") {
        return vec![];
    }
    code(text)
        .filter(|(_, line)| {
            line.split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == "unsafe")
        })
        .map(|(line, _)| {
            format!(
                "{}:{line}: unsafe: move it to a file named sys.rs of the datapath or of AES-GCM",
                path.display()
            )
        })
        .collect()
}

fn left_behind(path: &Path, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let may_read_clock = ["datapath/src/clock.rs", "src/ringway/src/worker/unix_time.rs"]
        .iter()
        .any(|file| path.ends_with(file));
    for (line, text) in code(text) {
        for (pattern, instead) in LEFT_BEHIND {
            if text.contains(pattern) && !(may_read_clock && pattern.contains("::now")) {
                breaches.push(format!("{}:{line}: {pattern}…: {instead}", path.display()));
            }
        }
        if text.contains(".unwrap()") {
            breaches.push(format!(
                "{}:{line}: unwrap: say in expect() why it holds",
                path.display()
            ));
        }
        if text.contains("allow(dead_code") {
            breaches.push(format!("{}:{line}: dead code: take it out", path.display()));
        }
    }
    breaches
}

fn style_breaches(path: &Path, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    if !text.lines().take(3).any(|line| line.starts_with("//!")) && !is_test(path) {
        breaches.push(format!(
            "{}:1: head: begin with //! and say what the file is for",
            path.display()
        ));
    }
    for (index, line) in text.lines().enumerate() {
        if line.chars().count() > 150 {
            breaches.push(format!(
                "{}:{}: line length: at most 150",
                path.display(),
                index + 1
            ));
        }
    }
    breaches
}

fn report(breaches: Vec<String>) {
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn layers_use_only_what_lies_below_them() {
    let mut breaches = Vec::new();
    for source in sources("src/engine/src")
        .iter()
        .filter(|source| !is_test(&source.path))
    {
        breaches.extend(layer_breaches(&source.path, &source.text));
    }
    report(breaches);
}

/// Files of a circle can only be understood together. One that has to be says so in the head of each of its files: `//! Circle with … : because …`.
///
/// `cargo test -p ringway-tests --test tidy circles -- --nocapture` lists them all.
#[test]
#[allow(clippy::print_stdout, reason = "lists the circles")]
fn files_form_no_circles_but_those_that_their_heads_justify() {
    let imports = Imports::read(root(), CRATES);
    let mut breaches = Vec::new();
    for circle in imports.circles() {
        println!("{} files: {circle:?}", circle.len());
        for file in &circle {
            let text = fs::read_to_string(root().join(file)).unwrap();
            let mut head = text.lines().take_while(|line| line.starts_with("//!"));
            if !head.any(|line| line.starts_with("//! Circle with ")) {
                let used = imports
                    .used_by(file)
                    .into_iter()
                    .filter(|used| circle.contains(used));
                breaches.push(format!(
                    "{}:1: circle: it uses, and is used by, {:?}: move what they share below both",
                    file.display(),
                    used.collect::<Vec<_>>()
                ));
            }
        }
    }
    report(breaches);
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let all = ["src", "datapath/src", "perf/src", "perf/protocol/src"]
        .into_iter()
        .flat_map(sources);
    report(
        all.flat_map(|source| unsafe_breaches(&source.path, &source.text))
            .collect(),
    );
    {
        let library = "src/engine/src/lib.rs";
        let text = fs::read_to_string(root().join(library)).unwrap();
        for rule in [
            "#![deny(unsafe_code)]",
            "#![cfg_attr(not(feature = \"fused_aes_gcm\"), forbid(unsafe_code))]",
        ] {
            assert!(text.contains(rule), "{library} must have {rule}");
        }
    }
}

#[test]
fn nothing_is_left_behind_in_the_libraries() {
    let all = ["src", "datapath/src"]
        .into_iter()
        .flat_map(sources)
        .filter(|source| !is_test(&source.path) && !is_program(&source.path));
    report(
        all.flat_map(|source| left_behind(&source.path, &source.text))
            .collect(),
    );
}

#[test]
fn files_begin_with_what_they_are_for() {
    let all = ["src", "datapath/src", "perf/src", "perf/protocol/src"]
        .into_iter()
        .flat_map(sources);
    report(
        all.flat_map(|source| style_breaches(&source.path, &source.text))
            .collect(),
    );
}

#[test]
fn top_level_has_nothing_else() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "bpf",
        "datapath",
        "tests",
        "perf",
        "scripts",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "target",
    ];
    let others: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !allowed.contains(&&name[..]))
        .collect();
    assert!(others.is_empty(), "not at the top level: {others:?}");
}

#[test]
fn the_rules_can_fail() {
    let path = Path::new("src/engine/src/streams/send.rs");
    assert_eq!(layer_breaches(path, "use crate::recovery::Recovery;\n").len(), 1);
    assert_eq!(layer_breaches(path, "use crate::wire::frame;\n").len(), 0);
    assert_eq!(
        layer_breaches(Path::new("src/engine/src/new_layer/x.rs"), "").len(),
        1
    );
    assert_eq!(unsafe_breaches(path, "let x = unsafe { f() };\n").len(), 1);
    assert_eq!(
        unsafe_breaches(Path::new("datapath/src/event/sys.rs"), "unsafe { f() }\n").len(),
        0
    );
    assert_eq!(left_behind(path, "    x.unwrap();\n    dbg!(x);\n").len(), 2);
    assert_eq!(
        left_behind(path, "#[cfg(test)]\nmod tests { fn f() { x.unwrap() } }\n").len(),
        0
    );
    assert_eq!(style_breaches(path, "fn f() {}\n").len(), 1);
}

/// Whoever follows the walk finds what it says.
#[test]
fn the_walk_of_a_packet_is_true() {
    let text = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let walks = walk::walks(&text);
    assert_eq!(walks.len(), 2, "the ways in and out");
    assert!(walks.iter().all(|walk| walk.len() >= 5), "{walks:?}");
    let read = |file: &Path| fs::read_to_string(root().join(file)).ok();
    report(walks.iter().flat_map(|walk| walk::untrue(walk, read)).collect());
}

#[test]
fn a_walk_that_is_not_true_is_found() {
    let text = "1. `a/one.rs`, `start`: first.\n2. `a/two.rs`, `go`: then.\n";
    let walks = walk::walks(text);
    assert_eq!(walks.len(), 1);
    let breaches = |two: &str| {
        let read = |file: &Path| match file.to_str()? {
            "a/one.rs" => Some("fn start() { x.go(); }".to_owned()),
            "a/two.rs" => Some(two.to_owned()),
            _ => None,
        };
        walk::untrue(&walks[0], read)
    };
    assert_eq!(breaches("fn go() {}"), [""; 0]);
    assert_eq!(breaches("fn gone() {}"), ["a/two.rs has no function go"]);
    let unread = |file: &Path| (file == Path::new("a/two.rs")).then(|| "fn go() {}".to_owned());
    assert_eq!(
        walk::untrue(&walks[0], unread),
        [
            "there is no file a/one.rs",
            "none of the files before a/two.rs calls go"
        ]
    );
}

/// Writes files below a folder of their own, and gives the circles among them.
fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let imports = Imports::read(folder.path(), &[("below", "below"), ("above", "above")]);
    let circles = imports.circles().into_iter();
    let names = |circle: Vec<&Path>| circle.iter().map(|file| file.display().to_string()).collect();
    circles.map(names).collect()
}

#[test]
fn circles_are_found_by_paths_by_imports_and_through_re_exports() {
    let below = (
        "below/lib.rs",
        "mod a; mod b; pub use self::a::A; pub use self::b::B;",
    );
    let (a, b) = ("below/a.rs", "below/b.rs");
    let found = circles_of(&[
        below,
        (a, "use crate::B; pub struct A(B);"),
        (b, "pub struct B; impl B { fn f(&self, _: super::a::A) {} }"),
        ("above/lib.rs", "use below::A;"),
    ]);
    assert_eq!(found, [[a, b]]);
    let none = circles_of(&[
        below,
        (a, "use crate::B; pub struct A(B);"),
        (b, "pub struct B; #[cfg(test)] mod tests { use super::super::A; }"),
        ("above/lib.rs", "use below::A;"),
    ]);
    assert_eq!(none, [[""; 0]; 0]);
    // The root defines what its part uses, and uses the part.
    let parent = circles_of(&[
        ("below/lib.rs", "mod a; pub struct Shared; fn f(_: a::A) {}"),
        (a, "use super::*; pub struct A(super::Shared);"),
        ("above/lib.rs", ""),
    ]);
    assert_eq!(parent, [[a, "below/lib.rs"]]);
}

/// What cargo prints about this workspace.
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A crate that does input or output, or runs threads, has no place below the engine.
#[test]
fn the_engine_does_no_io() {
    let tree = cargo(&[
        "tree",
        "--offline",
        "-p",
        "ringway-engine",
        "-e",
        "normal",
        "--all-features",
        "--prefix",
        "none",
    ]);
    let crates: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains(&"rustls"), "{tree}");
    for io in [
        "async-io",
        "crossbeam-queue",
        "io-uring",
        "libbpf-rs",
        "mio",
        "nix",
        "ringway-datapath",
        "rustix",
        "socket2",
        "tokio",
        "xsk-rs",
    ] {
        assert!(!crates.contains(&io), "ringway-engine depends on {io}:\n{tree}");
    }
    for source in sources("src/engine/src")
        .iter()
        .filter(|source| !is_test(&source.path))
    {
        for (line, text) in code(&source.text) {
            for io in [
                "std::fs",
                "std::io",
                "std::os",
                "std::process",
                "std::thread",
                "std::net::Udp",
                "std::net::Tcp",
            ] {
                assert!(
                    !text.contains(io),
                    "{}:{line}: the engine does no I/O: {io}",
                    source.path.display()
                );
            }
        }
    }
}
