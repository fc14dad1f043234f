//! The manual's page for operators has every line of the log and every counter.

use super::{is_program, is_test, root, sources};

const PAGE: &str = "src/ringway/src/manual/operating.md";
/// Where operators meet counters: public fields of these.
const COUNTERS: &[(&str, &str)] = &[
    ("datapath/src/contract.rs", "DeviceStats"),
    ("datapath/src/contract.rs", "XdpStats"),
    ("datapath/src/capture/options.rs", "CaptureStats"),
    ("datapath/src/source_rules.rs", "SourceRuleStats"),
    ("src/ringway/src/worker/stats.rs", "WorkerStats"),
    ("src/ringway/src/worker/listener.rs", "ListenerStats"),
];
/// Not counters, but what they are of.
const NO_COUNTERS: &[&str] = &["xdp", "rule"];
/// Shorter pieces of a line between what changes say nothing.
const PIECE_MIN: usize = 8;

/// The texts of what is logged for operators: the last string of each call.
fn logged(text: &str) -> Vec<String> {
    // Tests come last.
    let code = text.split("mod tests {").next().unwrap_or_default();
    let calls = ["tracing::info!(", "tracing::warn!(", "tracing::error!("];
    let starts = calls
        .iter()
        .flat_map(|call| code.match_indices(call).map(|(at, call)| at + call.len()));
    starts.filter_map(|start| last_string(&code[start..])).collect()
}

/// The last string literal before the parenthesis is closed.
fn last_string(call: &str) -> Option<String> {
    let (mut depth, mut last, mut string) = (1, None, None::<String>);
    let mut chars = call.chars();
    while let Some(c) = chars.next() {
        match (&mut string, c) {
            (Some(text), '\\') => text.extend(chars.next().filter(|next| *next != '\n')),
            (Some(_), '"') => last = string.take(),
            (Some(text), c) => text.push(c),
            (None, '"') => string = Some(String::new()),
            (None, '(') => depth += 1,
            (None, ')') => {
                depth -= 1;
                if depth == 0 {
                    return last;
                }
            }
            (None, _) => {}
        }
    }
    None
}

/// The pieces of a text that do not change.
fn pieces(text: &str) -> Vec<&str> {
    let outside = text.split('{').enumerate().map(|(index, part)| match index {
        0 => part,
        _ => part.split_once('}').map_or("", |(_, rest)| rest),
    });
    outside
        .map(|piece| piece.trim().trim_end_matches([':', ',']))
        .filter(|piece| piece.len() >= PIECE_MIN)
        .collect()
}

/// Names of the public fields of a struct.
fn fields(text: &str, name: &str) -> Vec<String> {
    let head = format!("pub struct {name} {{");
    let (_, body) = text
        .split_once(&head)
        .unwrap_or_else(|| panic!("there is no {head}"));
    let body = body.split("\n}").next().unwrap_or_default();
    let names = body.lines().filter_map(|line| line.trim().strip_prefix("pub "));
    names
        .filter_map(|field| Some(field.split_once(':')?.0.to_owned()))
        .collect()
}

#[test]
fn every_line_of_the_log_and_every_counter_is_explained_to_operators() {
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    let mut breaches = Vec::new();
    let mut lines = 0;
    let all = ["src/engine/src", "src/ringway/src", "datapath/src"]
        .into_iter()
        .flat_map(sources);
    for source in all.filter(|source| !is_test(&source.path) && !is_program(&source.path)) {
        for text in logged(&source.text) {
            let pieces = pieces(&text);
            lines += 1;
            // A piece each is enough: what is between changes. A text that is nothing but what changes cannot be looked for.
            let is_there = |piece: &&str| page.contains(*piece) || page.contains(&start(piece));
            if !pieces.is_empty() && !pieces.iter().any(is_there) {
                breaches.push(format!(
                    "{}: {PAGE} does not have `{text}`",
                    source.path.display()
                ));
            }
        }
    }
    assert!(lines > 20, "only {lines} lines were found");
    for (file, name) in COUNTERS {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let fields = fields(&text, name);
        assert!(!fields.is_empty(), "{name} has no fields");
        let lacking = fields
            .iter()
            .filter(|field| !NO_COUNTERS.contains(&field.as_str()) && !page.contains(&format!("`{field}`")));
        breaches.extend(lacking.map(|field| format!("{file}: {PAGE} does not have {name}::{field}")));
    }
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

/// What comes before the first sign of a long text: the page need not have the rest.
fn start(piece: &str) -> String {
    let signs = piece.match_indices([':', ',', ';']).map(|(at, _)| at);
    let end = signs.into_iter().find(|at| *at >= 3 * PIECE_MIN);
    piece[..end.unwrap_or(piece.len())].to_owned()
}

#[test]
fn lines_of_the_log_are_found_in_code() {
    let text = r#"
        tracing::error!(%error, ?id, "the device (or so) cannot: {x} do it");
        tracing::debug!("not this");
        tracing::warn!(
            %error,
            "AF_XDP: {} has {count} queues now, which are not all served",
            name("a")
        );
    "#;
    let found = logged(text);
    assert_eq!(found[1], "the device (or so) cannot: {x} do it");
    assert_eq!(pieces("AF_XDP: {} has {count} queues now"), ["queues now"]);
    assert_eq!(found.len(), 2);
}
