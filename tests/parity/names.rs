//! The public names of Ringway, as its sources have them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Fields, ImplItem, Item, ItemImpl, ItemMacro, Type, UseTree, Visibility};

/// What can be named: `Type`, `Type::member`, `Type::Variant::field`, `function`.
pub(crate) struct Names {
    /// The names at the root of the crate, and what they are called where they are defined.
    exported: HashMap<String, String>,
    /// Members by the type's own name.
    members: HashSet<String>,
}

/// The last part of a name.
pub(crate) fn last(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

impl Names {
    pub(crate) fn of_ringway(root: &Path) -> Names {
        let mut names = Names {
            exported: HashMap::new(),
            members: HashSet::new(),
        };
        for file in ["src/ringway/src/lib.rs", "src/ringway/src/api/mod.rs"] {
            for item in parse(&root.join(file)).items {
                match item {
                    Item::Use(item) if is_public(&item.vis) => names.export(&item.tree),
                    Item::Mod(item) if is_public(&item.vis) => names.add_exported(&item.ident, &item.ident),
                    Item::Const(item) if is_public(&item.vis) => names.add_exported(&item.ident, &item.ident),
                    Item::Fn(item) if is_public(&item.vis) => {
                        names.add_exported(&item.sig.ident, &item.sig.ident)
                    }
                    _ => {}
                }
            }
        }
        for directory in [
            "src/ringway/src",
            "src/engine/src",
            "datapath/src",
            "src/types/src",
        ] {
            names.walk(&root.join(directory));
        }
        names
    }

    /// `name` is public.
    pub(crate) fn has(&self, name: &str) -> bool {
        let (first, rest) = name.split_once("::").unwrap_or((name, ""));
        let Some(defined) = self.exported.get(first) else {
            return false;
        };
        rest.is_empty() || self.members.contains(&format!("{defined}::{rest}"))
    }

    fn add_exported(&mut self, name: &syn::Ident, defined: &syn::Ident) {
        self.exported.insert(name.to_string(), defined.to_string());
    }

    fn export(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => self.export(&path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.export(tree)),
            UseTree::Name(name) => self.add_exported(&name.ident, &name.ident),
            UseTree::Rename(rename) => self.add_exported(&rename.rename, &rename.ident),
            UseTree::Glob(_) => {}
        }
    }

    fn walk(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).expect("the directory is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                self.walk(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                self.visit_file(&parse(&path));
            }
        }
    }

    fn add_fields(&mut self, of: &str, fields: &Fields, all: bool) {
        for field in fields {
            if let Some(name) = &field.ident
                && (all || is_public(&field.vis))
            {
                self.members.insert(format!("{of}::{name}"));
            }
        }
    }
}

impl<'a> Visit<'a> for Names {
    fn visit_item_struct(&mut self, item: &'a syn::ItemStruct) {
        self.add_fields(&item.ident.to_string(), &item.fields, false);
    }

    fn visit_item_enum(&mut self, item: &'a syn::ItemEnum) {
        for variant in &item.variants {
            let name = format!("{}::{}", item.ident, variant.ident);
            self.add_fields(&name, &variant.fields, true);
            self.members.insert(name);
        }
    }

    fn visit_item_trait(&mut self, item: &'a syn::ItemTrait) {
        for member in &item.items {
            if let syn::TraitItem::Fn(function) = member {
                self.members
                    .insert(format!("{}::{}", item.ident, function.sig.ident));
            }
        }
    }

    fn visit_item_impl(&mut self, item: &'a ItemImpl) {
        let Type::Path(of) = &*item.self_ty else { return };
        let Some(of) = of.path.segments.last() else { return };
        for member in &item.items {
            let name = match member {
                ImplItem::Fn(function) if is_public(&function.vis) => &function.sig.ident,
                ImplItem::Const(constant) if is_public(&constant.vis) => &constant.ident,
                _ => continue,
            };
            self.members.insert(format!("{}::{name}", of.ident));
        }
    }

    /// `bitflags!`, `drop_reasons!`: the names of constants and variants in them.
    fn visit_item_macro(&mut self, item: &'a ItemMacro) {
        let text = item.mac.tokens.to_string();
        let words: Vec<_> = text.split_whitespace().collect();
        let kind = item
            .mac
            .path
            .segments
            .last()
            .map(|segment| segment.ident.to_string());
        let drop_reasons = kind.as_deref() == Some("drop_reasons");
        let mut of = if drop_reasons { "DropReason" } else { "" };
        for pair in words.windows(2) {
            match pair[0] {
                // One macro may have several.
                "struct" => of = pair[1],
                word if word == "const" || drop_reasons => {
                    self.members.insert(format!("{of}::{}", pair[1]));
                }
                _ => {}
            }
        }
        visit::visit_item_macro(self, item);
    }
}

fn parse(path: &Path) -> syn::File {
    let text = fs::read_to_string(path).expect("the file can be read");
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}
