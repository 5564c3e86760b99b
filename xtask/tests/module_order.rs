//! No module of any crate or test program needs another in a circle, so each can be read after what it uses.
//!
//! A module needs another if it names it, or an item of it, also by a name under which a third one gives it out again. That a module
//! uses its own submodules doesn't count, and neither does what only the unit tests of a crate use.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "this is test code, also outside the tests themselves"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::Visit;
use syn::{Attribute, Expr, ExprLit, Item, ItemMod, ItemUse, Lit, Meta, UseTree, Visibility};
use tokenscope_xtask::root;

/// The names from the crate's root to a module.
type Module = Vec<String>;

/// What a file says of other modules.
#[derive(Debug, Default)]
struct Names {
    /// Paths that it names.
    paths: Vec<Vec<String>>,
    /// The names that it gives out, each with its path.
    given_out: BTreeMap<String, Vec<String>>,
    /// The modules in the same file.
    depth: usize,
}

impl<'a> Visit<'a> for Names {
    fn visit_item(&mut self, item: &'a Item) {
        if !is_for_tests(attributes(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        self.depth += 1;
        syn::visit::visit_item_mod(self, item);
        self.depth -= 1;
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        let mut found = Vec::new();
        expand(&item.tree, &mut Vec::new(), &mut found);
        for (path, name) in found {
            let path = self.as_in_the_file(path);
            if !matches!(item.vis, Visibility::Inherited) && self.depth == 0 {
                self.given_out.insert(name, path.clone());
            }
            self.paths.push(path);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if ["crate", "self", "super"].contains(&segments[0].as_str()) && segments.len() > 1 {
            let segments = self.as_in_the_file(segments);
            self.paths.push(segments);
        }
        syn::visit::visit_path(self, path);
    }
}

impl Names {
    /// A path of a module in the file, as the file itself would write it.
    fn as_in_the_file(&self, mut path: Vec<String>) -> Vec<String> {
        let supers = path.iter().take_while(|segment| *segment == "super").count();
        path.drain(..supers.min(self.depth));
        path
    }
}

/// The paths of a `use`, each with the name that it brings.
fn expand(tree: &UseTree, before: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
    let with = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            expand(&path.tree, before, found);
            before.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|item| expand(item, before, found)),
        UseTree::Name(name) if name.ident == "self" => {
            found.push((before.clone(), before.last().cloned().unwrap_or_default()));
        }
        UseTree::Name(name) => found.push((with(&name.ident), name.ident.to_string())),
        UseTree::Rename(renamed) => found.push((with(&renamed.ident), renamed.rename.to_string())),
        UseTree::Glob(_) => found.push((before.clone(), String::new())),
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// True for `#[cfg(test)]`.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|name| name == "test")
    })
}

/// The file that `#[path = "…"]` names.
fn named_file(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| {
        let Meta::NameValue(named) = &attribute.meta else {
            return None;
        };
        let Expr::Lit(ExprLit {
            lit: Lit::Str(text), ..
        }) = &named.value
        else {
            return None;
        };
        named.path.is_ident("path").then(|| text.value())
    })
}

/// The modules of a crate that are in this one's file and the files below it.
fn read(file: &Path, module: Module, modules: &mut BTreeMap<Module, Names>) {
    let parsed = syn::parse_file(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut names = Names::default();
    names.visit_file(&parsed);
    let stem = file.file_stem().unwrap().to_string_lossy();
    let folder = match &*stem {
        "lib" | "main" | "mod" => file.parent().unwrap().to_owned(),
        stem => file.with_file_name(stem),
    };
    for item in &parsed.items {
        let Item::Mod(item) = item else { continue };
        if item.content.is_some() || is_for_tests(&item.attrs) {
            continue;
        }
        let name = item.ident.to_string();
        let named = named_file(&item.attrs).map(|path| file.parent().unwrap().join(path));
        let usual = [folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")];
        let mut files = named.into_iter().chain(usual);
        let file = files.find(|file| file.exists()).expect("a module has a file");
        read(&file, module.iter().cloned().chain([name]).collect(), modules);
    }
    modules.insert(module, names);
}

/// The module that a path of `from` leads to, if it is of this crate.
fn target(modules: &BTreeMap<Module, Names>, from: &Module, path: &[String], steps: usize) -> Option<Module> {
    let mut at = from.clone();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => {
            at.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|segment| segment == "super") {
                at.pop();
                rest = &rest[1..];
            }
        }
        first if !modules.contains_key(&child(&at, first)) => return None,
        _ => {}
    }
    while let Some(next) = rest
        .first()
        .map(|segment| child(&at, segment))
        .filter(|next| modules.contains_key(next))
    {
        at = next;
        rest = &rest[1..];
    }
    let given_out = rest.first().and_then(|name| modules.get(&at)?.given_out.get(name));
    given_out
        .filter(|_| steps < 8)
        .and_then(|path| target(modules, &at, path, steps + 1))
        .or(Some(at))
}

fn child(module: &Module, name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// What each module needs, without its own submodules and the crate's root, which gives everything out.
fn needs(modules: &BTreeMap<Module, Names>) -> BTreeMap<Module, BTreeSet<Module>> {
    let of = |(module, names): (&Module, &Names)| {
        let paths = names.paths.iter();
        let targets = paths.filter_map(|path| target(modules, module, path, 0));
        targets
            .filter(|other| !other.is_empty() && !other.starts_with(module))
            .collect()
    };
    let modules = modules.iter().filter(|(module, _)| !module.is_empty());
    modules
        .map(|(module, names)| (module.clone(), of((module, names))))
        .collect()
}

/// What the modules that the crate's root names need, each with all of its submodules.
fn needs_of_rooms(needs: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut rooms: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, others) in needs {
        let others = others.iter().filter(|other| other[0] != module[0]);
        let others = others.map(|other| vec![other[0].clone()]);
        rooms.entry(vec![module[0].clone()]).or_default().extend(others);
    }
    rooms
}

/// The modules that are needed by themselves, through others.
fn in_a_circle(needs: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<String> {
    let reached_from = |module: &Module| {
        let (mut reached, mut waiting) = (BTreeSet::new(), vec![module.clone()]);
        while let Some(next) = waiting.pop() {
            for other in needs.get(&next).into_iter().flatten() {
                if reached.insert(other.clone()) {
                    waiting.push(other.clone());
                }
            }
        }
        reached
    };
    let circular = needs.keys().filter(|module| reached_from(module).contains(*module));
    circular.map(|module| module.join("::")).collect()
}

/// The first file of the crate in this folder, and of each of its test programs that has several files.
fn first_files(folder: &Path) -> Vec<PathBuf> {
    let own = ["lib.rs", "main.rs"].map(|name| folder.join("src").join(name));
    let own = own.into_iter().find(|file| file.exists());
    let tests = std::fs::read_dir(folder.join("tests")).into_iter().flatten();
    let tests = tests.map(|entry| entry.unwrap().path().join("main.rs"));
    own.into_iter().chain(tests.filter(|file| file.exists())).collect()
}

#[test]
fn no_module_needs_itself_through_others() {
    let mut programs = 0;
    for entry in std::fs::read_dir(root()).unwrap() {
        for file in first_files(&entry.unwrap().path()) {
            let mut modules = BTreeMap::new();
            read(&file, Module::new(), &mut modules);
            let needs = needs(&modules);
            let circular = [in_a_circle(&needs), in_a_circle(&needs_of_rooms(&needs))].concat();
            assert!(
                circular.is_empty(),
                "modules of {} that need each other: {circular:#?}",
                file.display()
            );
            programs += 1;
        }
    }
    assert!(programs > 30, "{programs}");
}

#[test]
fn a_circle_is_found_also_through_what_a_third_module_gives_out() {
    let folder = std::env::temp_dir().join(format!("tokenscope-module-order-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, text) in [
        ("lib.rs", "mod one; mod two; mod three; pub use two::Two;"),
        ("one.rs", "use crate::Two; pub struct One(Two);"),
        (
            "two.rs",
            "pub struct Two; fn two() { let _ = crate::one::One; } #[cfg(test)] mod tests { use crate::three; }",
        ),
        ("three.rs", "use super::one::One;"),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let mut modules = BTreeMap::new();
    read(&folder.join("lib.rs"), Module::new(), &mut modules);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(in_a_circle(&needs(&modules)), ["one", "two"]);
}
