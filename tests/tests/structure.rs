//! Rules of the source tree: no import cycles between modules, few imports a file, short files, narrow
//! comments.
//!
//! Uses the standard library only, so that `make check` compiles this file alone in a second.

#![allow(clippy::unwrap_used)] // a failure in a helper fails the test

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 500;
const MAX_COMMENT_COLUMNS: usize = 110;
const MAX_SIBLING_IMPORTS: usize = 8;

/// A module's path in its crate: `["report", "page"]`.
type Module = Vec<String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Files below a folder with one of the endings, sorted. Build output and hidden folders are left out.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "cache", "runs", "node_modules"].contains(&name.as_str())
            {
                found.extend(files(&path, endings));
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The crates' source folders by crate name.
fn sources() -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root()).unwrap() {
        let folder = entry.unwrap().path();
        if folder.join("Cargo.toml").is_file() && folder.join("src").is_dir() {
            found.insert(folder.file_name().unwrap().to_string_lossy().into_owned(), folder.join("src"));
        }
    }
    assert!(found.len() >= 6, "{found:?}");
    found
}

/// Rust code with comments, strings and character literals replaced by spaces; line breaks stay.
fn code(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    while at < characters.len() {
        match literal_or_comment_end(&characters, at) {
            Some(end) => {
                out.extend(characters[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
                at = end;
            }
            None => {
                out.push(characters[at]);
                at += 1;
            }
        }
    }
    out
}

/// Where the comment, string or character literal that starts here ends.
fn literal_or_comment_end(text: &[char], at: usize) -> Option<usize> {
    let starts =
        |from: usize, word: &str| word.chars().enumerate().all(|(i, c)| text.get(from + i) == Some(&c));
    let find = |from: usize, word: &str| (from..text.len()).find(|&i| starts(i, word));
    if starts(at, "//") {
        return Some(find(at, "\n").unwrap_or(text.len()));
    }
    if starts(at, "/*") {
        let (mut depth, mut i) = (1, at + 2);
        while i < text.len() && depth > 0 {
            let step = if starts(i, "/*") { 1 } else { -i32::from(starts(i, "*/")) };
            depth += step;
            i += if step == 0 { 1 } else { 2 };
        }
        return Some(i);
    }
    let in_word = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
    let raw = at + usize::from(text[at] == 'b') + 1;
    if !in_word && (starts(at, "r") || starts(at, "br")) {
        let hashes = text[raw.min(text.len())..].iter().take_while(|&&c| c == '#').count();
        if text.get(raw + hashes) == Some(&'"') {
            let close = format!("\"{}", "#".repeat(hashes));
            return Some(find(raw + hashes + 1, &close).map_or(text.len(), |end| end + close.len()));
        }
    }
    if text[at] == '"' {
        let mut i = at + 1;
        while i < text.len() && text[i] != '"' {
            i += if text[i] == '\\' { 2 } else { 1 };
        }
        return Some((i + 1).min(text.len()));
    }
    if text[at] == '\'' {
        // a lifetime has no closing quote after one character
        return match text.get(at + 1) {
            Some('\\') => Some(find(at + 3, "'").map_or(text.len(), |end| end + 1)),
            Some(_) if text.get(at + 2) == Some(&'\'') => Some(at + 3),
            _ => None,
        };
    }
    None
}

/// Identifiers, `::` and single marks, without items under `#[cfg(test)]`.
fn tokens(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let code = code(text).replace("#[cfg(test)]", " \0 ");
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            c if word(c) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        found.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    let mut kept = Vec::new();
    let mut at = 0;
    while at < found.len() {
        if found[at] == "\0" {
            at = item_end(&found, at + 1);
        } else {
            kept.push(found[at].clone());
            at += 1;
        }
    }
    kept
}

/// Where the item that starts here ends: after its `;`, or after its first block.
fn item_end(tokens: &[String], start: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// Absolute paths of everything that a file names through `crate::` and `super::`.
fn imports(text: &str, module: &Module) -> BTreeSet<Module> {
    let (tokens, mut found) = (tokens(text), BTreeSet::new());
    for at in 0..tokens.len() {
        let starts = matches!(tokens[at].as_str(), "crate" | "super");
        if starts
            && tokens.get(at + 1).is_some_and(|next| next == "::")
            && (at == 0 || tokens[at - 1] != "::")
        {
            follow(&tokens, at, module.clone(), &mut found);
        }
    }
    found
}

/// Reads one path or group `{a::b, c}` that starts here. Returns where it ends.
fn follow(tokens: &[String], mut at: usize, mut path: Module, found: &mut BTreeSet<Module>) -> usize {
    loop {
        match tokens.get(at).map_or("", String::as_str) {
            "crate" => path.clear(),
            "super" => {
                path.pop();
            }
            "self" => {}
            "{" => {
                at += 1;
                while at < tokens.len() && tokens[at] != "}" {
                    at = if tokens[at] == "," { at + 1 } else { follow(tokens, at, path.clone(), found) };
                }
                return at + 1;
            }
            word if word.starts_with(|c: char| c.is_alphabetic() || c == '_') => path.push(word.to_owned()),
            _ => {
                found.insert(path);
                return at + 1;
            }
        }
        if tokens.get(at + 1).is_none_or(|next| next != "::") {
            found.insert(path);
            // `name as other`
            return if tokens.get(at + 1).is_some_and(|next| next == "as") { at + 3 } else { at + 1 };
        }
        at += 2;
    }
}

/// The module of a file below `src`; none for `lib.rs`, `main.rs` and files of tests.
fn module(file: &Path) -> Option<Module> {
    let mut parts: Module =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into()).collect();
    if parts.iter().any(|part| part.contains("tests")) || ["lib", "main", "bin"].contains(&parts[0].as_str())
    {
        return None;
    }
    if parts.last().unwrap() == "mod" {
        parts.pop();
    }
    Some(parts)
}

/// Which top-level module imports which.
fn edges(files: &[(PathBuf, String)]) -> BTreeMap<String, BTreeSet<String>> {
    let modules: Vec<(Module, &str)> =
        files.iter().filter_map(|(file, text)| Some((module(file)?, text.as_str()))).collect();
    let mut edges: BTreeMap<String, BTreeSet<String>> =
        modules.iter().map(|(module, _)| (module[0].clone(), BTreeSet::new())).collect();
    for (module, text) in &modules {
        for import in imports(text, module) {
            let known = import.first().is_some_and(|name| edges.contains_key(name) && *name != module[0]);
            if known {
                edges.get_mut(&module[0]).unwrap().insert(import[0].clone());
            }
        }
    }
    edges
}

/// Groups of modules that reach each other.
fn cycles(edges: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<BTreeSet<String>> {
    let reach = |from: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            next.extend(edges[module].iter().filter(|&to| seen.insert(to.clone())));
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = edges.keys().map(|name| (name, reach(name))).collect();
    let in_cycle = reached.iter().filter(|(name, seen)| seen.contains(**name));
    in_cycle
        .map(|(name, seen)| seen.iter().filter(|&other| reached[other].contains(*name)).cloned().collect())
        .collect()
}

/// The modules beside a file, or beside a folder that it is in, from which it imports.
fn siblings(text: &str, own: &Module, modules: &BTreeSet<Module>) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    for import in imports(text, own) {
        let shared = import.iter().zip(own).take_while(|(a, b)| a == b).count();
        let sibling: Module = import.into_iter().take(shared + 1).collect();
        if shared < own.len() && modules.contains(&sibling) {
            found.insert(sibling);
        }
    }
    found
}

fn read_crate(source: &Path) -> Vec<(PathBuf, String)> {
    let relative = |path: &Path| path.strip_prefix(source).unwrap().to_owned();
    files(source, &[".rs"]).iter().map(|p| (relative(p), std::fs::read_to_string(p).unwrap())).collect()
}

fn made_up(files: &[(&str, &str)]) -> Vec<(PathBuf, String)> {
    files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect()
}

#[test]
fn a_cycle_of_three_is_found_through_groups_super_and_plain_paths() {
    let files = made_up(&[
        ("lib.rs", "pub mod a; use crate::a::A;"),
        ("a.rs", "use crate::{b::{B, c}, d};\nfn f<'a>(x: &'a str) -> char { '\"' }"),
        ("b/mod.rs", "mod inside;"),
        ("b/inside.rs", "use super::super::c::C as Other;"),
        ("c.rs", "fn g() { let _ = super::a::A; }"),
        (
            "d.rs",
            "// use crate::a;\n/* crate::a::A */ const T: &str = \"crate::a::A\"; const R: &str = r#\"\" crate::a\"#;",
        ),
        ("d_tests.rs", "use crate::a;"),
    ]);
    let found = cycles(&edges(&files));
    assert_eq!(found, BTreeSet::from([["a", "b", "c"].map(String::from).into()]));
}

#[test]
fn code_under_cfg_test_makes_no_cycle() {
    let files = made_up(&[
        (
            "a.rs",
            "#[cfg(test)]\nuse crate::b::{B, C};\n#[cfg(test)]\nmod tests { use crate::b::B; fn f() {} }",
        ),
        ("b.rs", "pub(crate) use crate::a::A;"),
    ]);
    assert!(cycles(&edges(&files)).is_empty());
    let after =
        made_up(&[("a.rs", "#[cfg(test)] mod tests {}\nuse crate::b::B;"), ("b.rs", "use crate::a;")]);
    assert_eq!(cycles(&edges(&after)).len(), 1);
}

#[test]
fn siblings_are_counted_at_the_level_where_paths_part() {
    let name = |path: &str| -> Module { path.split("::").map(String::from).collect() };
    let modules = ["a", "a::one", "a::two", "a::two::deep", "b", "b::c"].map(name).into();
    let text =
        "use super::two::deep::D; use crate::b::{c::C, self}; use crate::a::one::Own; use crate::Root;";
    assert_eq!(siblings(text, &name("a::one"), &modules), BTreeSet::from(["a::two", "b"].map(name)));
}

#[test]
fn no_crate_has_an_import_cycle() {
    let mut found = Vec::new();
    for (name, source) in sources() {
        for cycle in cycles(&edges(&read_crate(&source))) {
            found.push(format!("{name}: {}", cycle.into_iter().collect::<Vec<_>>().join(", ")));
        }
    }
    assert!(found.is_empty(), "modules that import each other in a cycle:\n{}", found.join("\n"));
}

#[test]
fn files_of_the_runner_import_from_few_siblings() {
    let files = read_crate(&sources()["experiments"]);
    let mut modules = BTreeSet::new();
    for own in files.iter().filter_map(|(file, _)| module(file)) {
        modules.extend((1..=own.len()).map(|length| own[..length].to_vec()));
    }
    let mut found = Vec::new();
    for (file, text) in &files {
        let imported = module(file).map_or_else(BTreeSet::new, |own| siblings(text, &own, &modules));
        if imported.len() > MAX_SIBLING_IMPORTS {
            let names: Vec<String> = imported.iter().map(|path| path.join("::")).collect();
            found.push(format!("{}: {}: {}", file.display(), names.len(), names.join(", ")));
        }
    }
    assert!(found.is_empty(), "more than {MAX_SIBLING_IMPORTS} sibling modules:\n{}", found.join("\n"));
}

#[test]
fn no_source_file_is_long() {
    let mut found = Vec::new();
    for file in files(&root(), &[".rs"]) {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        if lines > MAX_LINES {
            found.push(format!("{}: {lines}", file.display()));
        }
    }
    assert!(found.is_empty(), "more than {MAX_LINES} lines:\n{}", found.join("\n"));
}

#[test]
fn comment_lines_are_narrow() {
    let mut found = Vec::new();
    for file in files(&root(), &[".rs", ".toml", ".sh", ".py", "Makefile"]) {
        let mark = if file.extension().is_some_and(|ending| ending == "rs") { "//" } else { "#" };
        for (number, line) in std::fs::read_to_string(&file).unwrap().lines().enumerate() {
            let columns = line.chars().count();
            if line.trim_start().starts_with(mark) && columns > MAX_COMMENT_COLUMNS {
                found.push(format!("{}:{}: {columns}", file.display(), number + 1));
            }
        }
    }
    let number = found.len();
    assert!(found.is_empty(), "{number} comments beyond column {MAX_COMMENT_COLUMNS}:\n{}", found.join("\n"));
}

/// A read of a tensor waits for the device. Those of generation go through `device::values`, which a test
/// counts.
#[test]
fn generation_reads_tensors_in_one_place() {
    const READING: [&str; 5] = ["into_data", "try_into_data", "to_data", "into_scalar", "try_into_scalar"];
    let mut found = Vec::new();
    for (file, text) in read_crate(&sources()["model"]) {
        let is_read = |token: &String| READING.contains(&token.as_str());
        let generates =
            file.starts_with("lm") || file.starts_with("generate") || file.starts_with("blip2.rs");
        if generates && tokens(&code(&text)).iter().any(is_read) {
            found.push(file.display().to_string());
        }
    }
    assert!(found.is_empty(), "generation reads tensors, not by device::values:\n{}", found.join("\n"));
}
