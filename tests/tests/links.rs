//! Every relative link, anchor and file name in README, docs and the crates' pages exists.
//!
//! Uses the standard library only, so that `make check` compiles this file alone in a second.

#![allow(clippy::unwrap_used)] // a failure in a helper fails the test

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Pages that record what was there at a date. Their file names may be of that date.
const RECORDS: [&str; 4] = ["docs/results/", "docs/log.md", "docs/benchmarks/", "CHANGELOG.md"];

/// Folders of the repository whose files are named in pages.
const FOLDERS: [&str; 9] =
    ["captioner/", "data/", "docs/", "experiments/", "metrics/", "model/", "scripts/", "tests/", "train/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn pages_in(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir()
            && depth > 0
            && !name.starts_with('.')
            && !["target", "cache", "runs"].contains(&&*name)
        {
            pages_in(&path, depth - 1, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// All pages by path from the root: README and its neighbours, docs, and each crate's README.
fn pages() -> BTreeMap<String, String> {
    let mut found = Vec::new();
    pages_in(&root(), 1, &mut found);
    pages_in(&root().join("docs"), 3, &mut found);
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    let pages: BTreeMap<String, String> =
        found.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect();
    assert!(pages.contains_key("README.md") && pages.contains_key("docs/SUMMARY.md") && pages.len() > 40);
    pages
}

/// A page without fenced blocks.
fn prose(page: &str) -> Vec<&str> {
    let mut fenced = false;
    let outside = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    };
    page.lines().filter(outside).collect()
}

/// The targets of `[text](target)`, without those in code spans.
fn links(page: &str) -> Vec<String> {
    let text = prose(page).join("\n");
    let spans = text.split('`').step_by(2).collect::<String>();
    let after = spans.split("](").skip(1);
    after.filter_map(|rest| Some(rest[..rest.find(')')?].to_owned())).collect()
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for line in prose(page).iter().filter(|line| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let count = seen.entry(anchor.clone()).or_default();
        found.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
        *count += 1;
    }
    found
}

/// `docs/a/../b.md` as `docs/b.md`; none if it leaves the repository.
fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(parts.pop()?),
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    Some(parts.join("/"))
}

/// What is wrong with one link of a page, if anything is.
fn fault(
    pages: &BTreeMap<String, String>,
    page: &str,
    link: &str,
    exists: impl Fn(&str) -> bool,
) -> Option<String> {
    if link.starts_with("http://") || link.starts_with("https://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = Path::new(page).parent().unwrap();
    let target = if file.is_empty() { Some(page.to_owned()) } else { normal(&folder.join(file)) };
    let Some(target) = target.filter(|target| exists(target)) else {
        return Some(format!("{page}: {link}: no such file"));
    };
    if page.starts_with("docs/") && !target.starts_with("docs/") {
        return Some(format!("{page}: {link}: outside the book"));
    }
    let known = anchor.is_empty() || pages.get(&target).is_some_and(|text| anchors(text).contains(anchor));
    (!known).then(|| format!("{page}: {link}: no such heading"))
}

#[test]
fn faulty_links_are_found() {
    let pages: BTreeMap<String, String> = [
        (
            "docs/a.md",
            "# A\n[x](b.md#two-words) `[y](none.md)`\n```\n[z](none.md)\n```\n[w](#a) [v](https://x.y)",
        ),
        (
            "docs/b.md",
            "# B\n## Two words\n```sh\n# no heading\n```\n[x](c.md) [y](a.md#b)\n[z](../README.md)",
        ),
        ("README.md", "[x](docs/b.md#two-words-1)"),
    ]
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .into();
    let exists = |path: &str| pages.contains_key(path);
    let faults = |page: &str| -> Vec<String> {
        links(&pages[page]).iter().filter_map(|link| fault(&pages, page, link, exists)).collect()
    };
    assert!(faults("docs/a.md").is_empty(), "{:?}", faults("docs/a.md"));
    assert_eq!(
        faults("docs/b.md"),
        [
            "docs/b.md: c.md: no such file",
            "docs/b.md: a.md#b: no such heading",
            "docs/b.md: ../README.md: outside the book"
        ]
    );
    assert_eq!(faults("README.md").len(), 1);
}

#[test]
fn every_link_has_a_target() {
    let pages = pages();
    let exists = |path: &str| root().join(path).exists();
    let found: Vec<String> = pages
        .iter()
        .flat_map(|(name, text)| links(text).into_iter().map(move |link| (name, link)))
        .filter_map(|(name, link)| fault(&pages, name, &link, exists))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_page_of_docs_is_in_the_summary() {
    let pages = pages();
    let listed: BTreeSet<String> = links(&pages["docs/SUMMARY.md"]).into_iter().collect();
    let missing: Vec<&str> = pages
        .keys()
        .filter_map(|name| name.strip_prefix("docs/"))
        .filter(|name| *name != "SUMMARY.md" && !listed.contains(*name))
        .collect();
    assert!(missing.is_empty(), "not in docs/SUMMARY.md: {missing:?}");
}

#[test]
fn every_file_that_a_page_names_exists() {
    let (mut missing, mut count) = (Vec::new(), 0);
    for (page, text) in
        pages().iter().filter(|(page, _)| !RECORDS.iter().any(|start| page.starts_with(start)))
    {
        let text = prose(text).join("\n");
        for name in text.split('`').skip(1).step_by(2) {
            let path = name.split([' ', ':', '#']).next().unwrap();
            let pattern = path.contains(['*', '<', '{', '(']) || path.chars().any(char::is_uppercase);
            let named = FOLDERS.iter().any(|folder| path.starts_with(folder)) && !pattern;
            count += usize::from(named);
            if named && !root().join(path).exists() {
                missing.push(format!("{page}: {path}"));
            }
        }
    }
    assert!(count > 40, "only {count} file names were found");
    assert!(missing.is_empty(), "named and not there:\n{}", missing.join("\n"));
}
