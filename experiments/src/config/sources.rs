//! Where the settings of the profile `paper` come from (`configs/sources.toml`), and the table of
//! docs/reproducing.md that is made of it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::{find_ablation, flatten, resolve_all};

/// Settings by their source, each with a remark. A key stands for all below it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sources {
    paper: BTreeMap<String, String>,
    code: BTreeMap<String, String>,
    neither: BTreeMap<String, String>,
    no_effect: BTreeMap<String, String>,
}

/// The settings of the studies that together have every one, by study.
fn settings() -> Vec<(&'static str, BTreeMap<String, Value>)> {
    let of = |study: &'static str, variant: &str| {
        let ablation = find_ablation(study).unwrap();
        let all = resolve_all("paper", &ablation, &[]).unwrap();
        let (_, config) = all.iter().find(|(own, _)| own.name == variant).unwrap();
        let table: Table = toml::from_str(&config.to_toml().unwrap()).unwrap();
        (study, flatten(&table).into_iter().collect())
    };
    vec![of("headline", "full"), of("vqa", "all_trainable")]
}

fn is_below(key: &str, start: &str) -> bool {
    key == start || key.strip_prefix(start).is_some_and(|rest| rest.starts_with('.'))
}

/// The table of the settings that neither the paper nor its code states.
fn table(sources: &Sources) -> String {
    let mut lines = vec!["| setting | value | why |".to_owned(), "| --- | --- | --- |".to_owned()];
    for (key, why) in &sources.neither {
        let of = |(study, settings): &(&'static str, BTreeMap<String, Value>)| {
            settings.get(key).map(move |value| (*study, value.to_string()))
        };
        let mut values: Vec<(&str, String)> = settings().iter().filter_map(of).collect();
        values.dedup_by(|later, first| later.1 == first.1);
        let text: Vec<String> = match &values[..] {
            [(_, value)] => vec![format!("`{value}`")],
            several => several.iter().map(|(study, value)| format!("{study}: `{value}`")).collect(),
        };
        lines.push(format!("| `{key}` | {} | {why} |", text.join(", ")));
    }
    lines.join("\n")
}

const BEGIN: &str = "<!-- settings of neither: begin -->\n";
const END: &str = "\n<!-- settings of neither: end -->";

fn sources() -> Sources {
    toml::from_str(include_str!("../../configs/sources.toml")).unwrap()
}

#[test]
fn every_setting_of_the_paper_profile_has_one_source() {
    let Sources { paper, code, neither, no_effect } = sources();
    let keys: Vec<&String> =
        [&paper, &code, &neither, &no_effect].into_iter().flat_map(BTreeMap::keys).collect();
    let all = settings();
    for (study, settings) in &all {
        for key in settings.keys() {
            let of: Vec<_> = keys.iter().filter(|start| is_below(key, start)).collect();
            assert_eq!(of.len(), 1, "{study}: {key} has the sources {of:?}, expected one in sources.toml");
        }
    }
    for start in keys {
        let is_set = all.iter().any(|(_, settings)| settings.keys().any(|key| is_below(key, start)));
        assert!(is_set, "{start} of sources.toml is no setting");
    }
}

/// `UPDATE_DOCS=1 cargo test -p experiments the_page_lists` writes the table into the page.
#[test]
fn the_page_lists_every_setting_that_neither_the_paper_nor_its_code_states() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reproducing.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let expected = table(&sources());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(found, expected, "UPDATE_DOCS=1 cargo test -p experiments the_page_lists renews it");
}
