//! The walk of `CONTRIBUTING.md`: the files that a packet passes, in order.

use std::path::Path;

/// A stop: a file and the function in it that the packet passes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stop {
    pub file: String,
    pub function: String,
}

/// The walks of a text: its numbered lists of items that begin with a file and a function, each in backquotes.
pub(crate) fn walks(text: &str) -> Vec<Vec<Stop>> {
    let mut walks: Vec<Vec<Stop>> = Vec::new();
    for line in text.lines() {
        let Some((number, item)) = line.split_once(". `") else {
            continue;
        };
        let Ok(number) = number.trim().parse::<usize>() else {
            continue;
        };
        let mut words = item.split('`');
        let (Some(file), Some(_), Some(function)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if !file.contains('/') {
            continue;
        }
        if number == 1 {
            walks.push(Vec::new());
        }
        if let Some(walk) = walks.last_mut() {
            walk.push(Stop {
                file: file.to_owned(),
                function: function.to_owned(),
            });
        }
    }
    walks
}

/// What is not true of a walk: each file exists and has the function, and calls it from a file before it.
pub(crate) fn untrue(walk: &[Stop], read: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut before = String::new();
    for (index, Stop { file, function }) in walk.iter().enumerate() {
        let Some(text) = read(Path::new(file)) else {
            breaches.push(format!("there is no file {file}"));
            continue;
        };
        let defined = [format!("fn {function}("), format!("fn {function}<")];
        if !defined.iter().any(|definition| text.contains(definition)) {
            breaches.push(format!("{file} has no function {function}"));
        }
        if index > 0 && !calls(&before, function) {
            breaches.push(format!("none of the files before {file} calls {function}"));
        }
        before += &text;
    }
    breaches
}

fn calls(text: &str, function: &str) -> bool {
    text.match_indices(&format!("{function}(")).any(|(at, _)| {
        let before = &text[..at];
        !before.ends_with("fn ") && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}
