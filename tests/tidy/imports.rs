//! Which file uses what another file defines, read from the sources.
//!
//! A file uses another one where it names an item, by `use` or by a path, that the other one defines; re-exports are followed to where the
//! item is. `mod` declarations and tests do not count.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

/// The project's crates by name, and the folder of each one's root.
pub(crate) const CRATES: &[(&str, &str)] = &[
    ("ringway_types", "src/types/src"),
    ("ringway_engine", "src/engine/src"),
    ("ringway", "src/ringway/src"),
    ("ringway_async", "src/async/src"),
    ("ringway_bpf", "bpf/src"),
    ("ringway_datapath", "datapath/src"),
    ("ringway_perf_protocol", "perf/protocol/src"),
    ("ringway_perf", "perf/src"),
    ("engine_costs", "src/engine/benches/engine_costs"),
];

/// The files of all crates, by path from the root, and which of them each one uses.
pub(crate) struct Imports {
    pub files: Vec<PathBuf>,
    pub uses: BTreeSet<(usize, usize)>,
}

impl Imports {
    /// Reads crates, each with its folder below `root`.
    pub(crate) fn read(root: &Path, crates: &[(&str, &str)]) -> Imports {
        let mut modules = Modules::default();
        for (name, folder) in crates {
            let crate_root = modules.add(None, usize::MAX);
            modules.crates.insert((*name).to_owned(), crate_root);
            modules.read_folder(root, Path::new(folder), crate_root);
        }
        let uses = modules.uses();
        Imports {
            files: modules.files,
            uses,
        }
    }

    /// Files that use each other, directly or by way of others: each circle in order of names.
    pub(crate) fn circles(&self) -> Vec<Vec<&Path>> {
        let graph: DiGraphMap<usize, ()> = self.uses.iter().map(|&(from, to)| (from, to)).collect();
        let mut circles: Vec<Vec<&Path>> = tarjan_scc(&graph)
            .into_iter()
            .filter(|circle| circle.len() > 1)
            .map(|circle| {
                let mut files: Vec<&Path> = circle.into_iter().map(|file| &*self.files[file]).collect();
                files.sort();
                files
            })
            .collect();
        circles.sort();
        circles
    }

    /// What a file uses.
    pub(crate) fn used_by(&self, file: &Path) -> Vec<&Path> {
        let used = self.uses.iter().filter(|(from, _)| self.files[*from] == file);
        used.map(|(_, to)| &*self.files[*to]).collect()
    }
}

/// A module: of a file, or inline in one.
struct Module {
    parent: Option<usize>,
    file: usize,
    children: BTreeMap<String, usize>,
    /// Items that it defines, other than modules.
    items: BTreeMap<String, usize>,
    /// What it imports: the name here, and the path.
    imports: Vec<(String, Vec<String>)>,
    globs: Vec<Vec<String>>,
    /// Paths that its code names.
    paths: BTreeSet<Vec<String>>,
}

#[derive(Default)]
struct Modules {
    files: Vec<PathBuf>,
    all: Vec<Module>,
    crates: HashMap<String, usize>,
}

enum Target {
    Module(usize),
    Item(usize),
}

impl Modules {
    fn add(&mut self, parent: Option<usize>, file: usize) -> usize {
        self.all.push(Module {
            parent,
            file,
            children: BTreeMap::new(),
            items: BTreeMap::new(),
            imports: Vec::new(),
            globs: Vec::new(),
            paths: BTreeSet::new(),
        });
        self.all.len() - 1
    }

    fn child(&mut self, parent: usize, name: &str, file: usize) -> usize {
        if let Some(&child) = self.all[parent].children.get(name) {
            if self.all[child].file == usize::MAX {
                self.all[child].file = file;
            }
            return child;
        }
        let child = self.add(Some(parent), file);
        self.all[parent].children.insert(name.to_owned(), child);
        child
    }

    /// The files of a folder become modules below `module`; `mod.rs`, `lib.rs` and `main.rs` are that module itself.
    fn read_folder(&mut self, root: &Path, folder: &Path, module: usize) {
        let mut entries: Vec<PathBuf> = fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for path in entries {
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let relative = path.strip_prefix(root).unwrap().to_owned();
            if stem == "tests" || stem == "bin" {
                continue;
            }
            if path.is_dir() {
                let child = self.child(module, &stem, usize::MAX);
                self.read_folder(root, &relative, child);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let parsed =
                    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                self.files.push(relative);
                let file = self.files.len() - 1;
                let of_file = match &*stem {
                    "mod" | "lib" | "main" => {
                        self.all[module].file = file;
                        module
                    }
                    name => self.child(module, name, file),
                };
                self.read_items(&parsed.items, of_file, file);
            }
        }
    }

    fn read_items(&mut self, items: &[Item], module: usize, file: usize) {
        for item in items {
            if is_for_tests(attributes(item)) {
                continue;
            }
            match item {
                Item::Mod(inline) => {
                    if let Some((_, items)) = &inline.content {
                        let child = self.child(module, &inline.ident.to_string(), file);
                        self.read_items(items, child, file);
                    }
                }
                Item::Use(import) => {
                    let mut collector = Collector::default();
                    collector.add_tree(&import.tree, &mut Vec::new());
                    self.all[module].imports.extend(collector.imports);
                    self.all[module].globs.extend(collector.globs);
                }
                item => {
                    if let Some(name) = name(item) {
                        self.all[module].items.insert(name, file);
                    }
                    let mut collector = Collector::default();
                    collector.visit_item(item);
                    let paths = collector.imports.into_iter().map(|(_, path)| path);
                    self.all[module].paths.extend(paths.chain(collector.paths));
                }
            }
        }
    }

    fn uses(&self) -> BTreeSet<(usize, usize)> {
        let mut uses = BTreeSet::new();
        for (index, module) in self.all.iter().enumerate() {
            let imported = module.imports.iter().map(|(_, path)| path);
            for path in imported.chain(&module.globs).chain(&module.paths) {
                let to = match self.resolve(index, path, 0) {
                    Some(Target::Module(module)) => self.all[module].file,
                    Some(Target::Item(file)) => file,
                    None => continue,
                };
                if to != module.file && to != usize::MAX {
                    uses.insert((module.file, to));
                }
            }
        }
        uses
    }

    /// What a path that is written in a module leads to.
    fn resolve(&self, from: usize, path: &[String], depth: usize) -> Option<Target> {
        if depth > 16 {
            return None;
        }
        let (first, rest) = path.split_first()?;
        let mut root = from;
        while let Some(parent) = self.all[root].parent {
            root = parent;
        }
        match &**first {
            "crate" => self.walk(root, rest, depth),
            "self" => self.walk(from, rest, depth),
            "super" => self.walk(self.all[from].parent?, rest, depth),
            name => {
                if let Some(target) = self.lookup(from, name, rest, depth) {
                    return Some(target);
                }
                self.walk(*self.crates.get(name)?, rest, depth)
            }
        }
    }

    fn walk(&self, module: usize, path: &[String], depth: usize) -> Option<Target> {
        match path.split_first() {
            None => Some(Target::Module(module)),
            Some((first, rest)) if first == "super" => self.walk(self.all[module].parent?, rest, depth),
            Some((first, rest)) if first == "self" => self.walk(module, rest, depth),
            Some((first, rest)) => self.lookup(module, first, rest, depth),
        }
    }

    /// What `name` is in a module, and `rest` below it.
    fn lookup(&self, module: usize, name: &str, rest: &[String], depth: usize) -> Option<Target> {
        let here = &self.all[module];
        if let Some(&child) = here.children.get(name) {
            return self.walk(child, rest, depth);
        }
        if let Some(&file) = here.items.get(name) {
            return Some(Target::Item(file));
        }
        if let Some((_, path)) = here.imports.iter().find(|(alias, _)| alias == name) {
            return match self.resolve_import(module, path, depth + 1)? {
                Target::Module(target) => self.walk(target, rest, depth),
                item => Some(item),
            };
        }
        here.globs
            .iter()
            .filter_map(|glob| match self.resolve_import(module, glob, depth + 1) {
                Some(Target::Module(target)) if target != module => Some(target),
                _ => None,
            })
            .find_map(|target| {
                let found = self.lookup(target, name, rest, depth + 1);
                found.filter(|_| depth < 8)
            })
    }

    /// As [`Modules::resolve`]; an import `use x::y` means the crate `x` where an import has that name too.
    fn resolve_import(&self, module: usize, path: &[String], depth: usize) -> Option<Target> {
        match (path, self.crates.get(&path[0])) {
            ([_, rest @ ..], Some(&root)) if !self.all[module].children.contains_key(&path[0]) => {
                self.walk(root, rest, depth)
            }
            _ => self.resolve(module, path, depth),
        }
    }
}

/// Gathers imports and paths of an item.
#[derive(Default)]
struct Collector {
    imports: Vec<(String, Vec<String>)>,
    globs: Vec<Vec<String>>,
    paths: BTreeSet<Vec<String>>,
}

impl Collector {
    fn add_tree(&mut self, tree: &UseTree, prefix: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_tree(&path.tree, prefix);
                prefix.pop();
            }
            UseTree::Name(name) if name.ident == "self" => {
                let alias = prefix.last().cloned().unwrap_or_default();
                self.imports.push((alias, prefix.clone()));
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                let path = [&prefix[..], std::slice::from_ref(&name)].concat();
                self.imports.push((name, path));
            }
            UseTree::Rename(rename) => {
                let name = rename.ident.to_string();
                let path = match &*name {
                    "self" => prefix.clone(),
                    _ => [&prefix[..], &[name]].concat(),
                };
                self.imports.push((rename.rename.to_string(), path));
            }
            UseTree::Glob(_) => self.globs.push(prefix.clone()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(tree, prefix)),
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        self.add_tree(&import.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string());
            self.paths.insert(segments.collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, _: &'ast syn::ItemMod) {}

    // `pub(super)` and `pub(in path)` use nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                let text = list.tokens.to_string();
                text == "test" || text.starts_with("all (test") || text.starts_with("all(test")
            })
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}
