//! Layers of the daemon's modules: each module may use only those on the floors below it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The modules of the crate, the lowest first. Modules on one floor do not use each other.
const FLOORS: &[&[&str]] = &[
    &[
        "memory",
        "privileges",
        "stdout",
        "sync",
        "sys",
        "table",
        "text",
        "version",
    ],
    &["attribution", "logging", "notify"],
    &["config", "exercise", "probe"],
    &["host"],
    &["check", "ledger"],
    &["event"],
    &["live", "watch"],
    &["metrics"],
    &["http"],
    &["run"],
    &["top"],
    &["cli"],
];

/// The path of a module from the root of the crate, by names.
type Module = Vec<String>;

/// A module and another one that it names.
type Use = (Module, Module);

/// Returns the source of each file of the library.
fn sources() -> BTreeMap<Module, TokenStream> {
    let mut sources = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![(root, Module::new())];
    while let Some((folder, module)) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let mut inner = module.clone();
            inner.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
            if path.is_dir() {
                folders.push((path, inner));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                if ["mod", "lib"].contains(&inner.last().unwrap().as_str()) {
                    inner.pop();
                }
                // The binary is another crate, above all floors.
                if inner != ["main"] {
                    let text = fs::read_to_string(path).unwrap();
                    sources.insert(inner, text.parse().unwrap());
                }
            }
        }
    }
    sources
}

/// Returns all modules that each file names, by paths from `crate`, `self` or `super`.
fn uses(sources: &BTreeMap<Module, TokenStream>) -> BTreeSet<Use> {
    let mut uses = BTreeSet::new();
    for (module, source) in sources {
        let mut named = Vec::new();
        paths(source.clone(), module, &mut named);
        for mut path in named {
            while !sources.contains_key(&path) {
                path.pop();
            }
            uses.insert((module.clone(), path));
        }
    }
    uses
}

/// Collects the paths in the tokens of this module.
fn paths(tokens: TokenStream, module: &[String], named: &mut Vec<Module>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut rest = tokens.as_slice();
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (TokenTree::Ident(word), [TokenTree::Ident(name), TokenTree::Group(body), ..])
                if word == "mod" && body.delimiter() == Delimiter::Brace =>
            {
                let inner = [module, &[name.to_string()]].concat();
                paths(body.stream(), &inner, named);
                rest = &after[2..];
                continue;
            }
            (TokenTree::Group(group), _) => paths(group.stream(), module, named),
            (TokenTree::Ident(word), _) if is_separator(after) => {
                let start = match word.to_string().as_str() {
                    "crate" => Some(Module::new()),
                    "self" => Some(module.to_vec()),
                    "super" => Some(parent(module)),
                    _ => None,
                };
                if let Some(start) = start {
                    tree(&after[2..], start, named);
                    // A further `super` continues from there, not from this module.
                    rest = after;
                    while let [_, _, TokenTree::Ident(word), more @ ..] = rest
                        && is_separator(rest)
                        && word == "super"
                    {
                        rest = more;
                    }
                    continue;
                }
            }
            _ => {}
        }
        rest = after;
    }
}

/// Collects the paths that continue from this module.
fn tree(tokens: &[TokenTree], mut path: Module, named: &mut Vec<Module>) {
    match tokens {
        [TokenTree::Ident(name), rest @ ..] => {
            match name.to_string().as_str() {
                "super" => path = parent(&path),
                "self" => {}
                name => path.push(name.to_owned()),
            }
            if is_separator(rest) {
                tree(&rest[2..], path, named);
            } else {
                named.push(path);
            }
        }
        [TokenTree::Group(group), ..] if group.delimiter() == Delimiter::Brace => {
            let entries: Vec<_> = group.stream().into_iter().collect();
            let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',');
            for entry in entries.split(is_comma).filter(|entry| !entry.is_empty()) {
                tree(entry, path.clone(), named);
            }
        }
        _ => named.push(path),
    }
}

fn is_separator(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(one), TokenTree::Punct(two), ..]
        if one.as_char() == ':' && two.as_char() == ':')
}

fn parent(module: &[String]) -> Module {
    module[..module.len() - 1].to_vec()
}

/// Returns a use as one between two modules of one parent; `None` if a module uses itself, a descendant or an ancestor.
fn between_siblings((from, to): &Use) -> Option<Use> {
    let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let sibling = |module: &Module| Some(module.get(..=common)?.to_vec());
    Some((sibling(from)?, sibling(to)?))
}

/// Returns the uses that are part of a cycle, in which the used module depends on its user.
fn circles(uses: &BTreeSet<Use>) -> BTreeSet<Use> {
    let leads_to = |start: &Module, end: &Module| {
        let mut reached = BTreeSet::from([start]);
        let mut found = vec![start];
        while let Some(module) = found.pop() {
            let next = uses.iter().filter(|(user, _)| user == module);
            found.extend(
                next.map(|(_, used)| used)
                    .filter(|used| reached.insert(used)),
            );
        }
        reached.contains(end)
    };
    let circle = uses.iter().filter(|(user, used)| leads_to(used, user));
    circle.cloned().collect()
}

fn written(uses: &BTreeSet<Use>) -> Vec<String> {
    let written = |(from, to): &Use| format!("{} uses {}", from.join("::"), to.join("::"));
    uses.iter().map(written).collect()
}

#[test]
fn no_module_uses_one_that_uses_it() {
    let uses: BTreeSet<_> = uses(&sources())
        .iter()
        .filter_map(between_siblings)
        .collect();
    assert!(uses.len() > 100, "found only {}", uses.len());
    assert_eq!(written(&circles(&uses)), [""; 0]);
}

#[test]
fn each_floor_uses_only_those_below() {
    let sources = sources();
    let floor = |module: &Module| FLOORS.iter().position(|floor| floor.contains(&&*module[0]));
    let mut uses: BTreeSet<_> = uses(&sources).iter().filter_map(between_siblings).collect();
    uses.retain(|(from, to)| from.len() == 1 && floor(from) <= floor(to));
    assert_eq!(written(&uses), [""; 0]);
    let modules: BTreeSet<_> = sources.keys().filter_map(|module| module.first()).collect();
    let listed: BTreeSet<_> = FLOORS.concat().into_iter().map(str::to_owned).collect();
    assert_eq!(modules, listed.iter().collect());
}

#[test]
fn every_way_to_name_a_module_is_found() {
    let source = "use crate::{a::One, b::{self, c::Two}};\n\
                  use super::d::*;\n\
                  // crate::comment::Three\n\
                  fn f() -> super::super::e::Four { print!(\"crate::text\", crate::g::h()) }\n\
                  mod inner { use super::i; use super::super::j::Five; }";
    let module = ["x", "y"].map(str::to_owned);
    let mut named = Vec::new();
    paths(source.parse().unwrap(), &module, &mut named);
    let named: Vec<_> = named.iter().map(|path| path.join("::")).collect();
    let expected = [
        "a::One",
        "b",
        "b::c::Two",
        "x::d",
        "e::Four",
        "g::h",
        "x::y::i",
        "x::j::Five",
    ];
    assert_eq!(named, expected);
}

#[test]
fn a_circle_is_found() {
    let uses = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")];
    let uses = uses.map(|(from, to)| (vec![from.to_owned()], vec![to.to_owned()]));
    assert_eq!(written(&circles(&uses.into())), ["b uses c", "c uses b"]);
}
