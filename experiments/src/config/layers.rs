//! Tables of settings: merging them, changing them by `--set key=value`, and giving them a type.

use std::fmt;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::suggest::with_suggestion;
use super::{faults, renamed};

/// Everything that is wrong with a table of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError {
    /// A sentence for each fault.
    pub faults: Vec<String>,
    /// Where the settings come from; none for a fault of the command line.
    pub place: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.faults.join("\n"))?;
        self.place.iter().try_for_each(|place| write!(formatter, "\nin {place}"))
    }
}

impl std::error::Error for ConfigError {}

/// The setting that removes a profile's data set, so that the tiny world is used.
pub(super) const TINY_WORLD: &str = "dataset=tiny";

/// A configuration from the text of a file and the settings of the command line.
pub(crate) fn merge_sets<T: DeserializeOwned>(
    text: &str,
    sets: &[String],
    place: &str,
) -> Result<T, ConfigError> {
    typed(parse(text, place)?, sets, place)
}

/// Every value of a table with its dotted key. A part of a key with dots or stars, as patterns of parameters
/// have them, is quoted.
pub(crate) fn flatten(table: &Table) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    for (key, value) in table {
        let key = if key.contains(['.', '*']) { format!("\"{key}\"") } else { key.clone() };
        match value {
            Value::Table(inner) => {
                flat.extend(flatten(inner).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            value => flat.push((key, value.clone())),
        }
    }
    flat
}

/// Changes a table by `key=value` settings and gives it its type.
pub(super) fn typed<T: DeserializeOwned>(
    mut table: Table,
    sets: &[String],
    place: &str,
) -> Result<T, ConfigError> {
    apply_all(&mut table, sets)?;
    inherit(&mut table);
    let mut faults = renamed::take(&mut table);
    let found = faults::typed(table);
    match found {
        Ok(value) if faults.is_empty() => Ok(value),
        found => {
            faults.extend(found.err().unwrap_or_default());
            let place = match sets {
                [] => place.to_owned(),
                sets => format!(
                    "{place}, with --set {} (`experiments show NAME` prints every key)",
                    sets.join(" --set ")
                ),
            };
            Err(ConfigError { faults, place: Some(place) })
        }
    }
}

/// Changes a table by `key=value` settings.
pub(super) fn apply_all(table: &mut Table, sets: &[String]) -> Result<(), ConfigError> {
    sets.iter().try_for_each(|set| {
        apply(table, set)
            .map_err(|fault| ConfigError { faults: vec![format!("--set {set}: {fault}")], place: None })
    })
}

/// Reads a file's text.
pub(super) fn parse<T: DeserializeOwned>(text: &str, place: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError {
        faults: vec![with_suggestion(&error.to_string())],
        place: Some(place.to_owned()),
    })
}

/// Changes a table by one `key=value` setting.
fn apply(table: &mut Table, set: &str) -> Result<(), String> {
    if set == TINY_WORLD {
        table.remove("dataset");
        return Ok(());
    }
    let (key, value) = set.split_once('=').ok_or("expected key=value")?;
    let parts = key_parts(key.trim()).ok_or_else(|| {
        format!(
            "\"{}\" is no key; a part that holds dots or stars is quoted, as in \
             --set 'train.parameters.\"vision_model.*\"=frozen'",
            key.trim()
        )
    })?;
    assign(table, &parts, parse_value(value.trim()))
        .map_err(|fault| format!("not a key of the configuration: {fault}"))
}

/// Copies the settings of the first training that self-critical training does not state.
fn inherit(table: &mut Table) {
    let Some(Value::Table(mut train)) = table.get("train").cloned() else { return };
    if let Some(Value::Table(scst)) = table.get_mut("scst")
        && let Value::Table(own) = scst.entry("train").or_insert_with(|| Value::Table(Table::new()))
    {
        merge(&mut train, own);
        *own = train;
    }
}

/// Replaces the settings of `base` by those of `over`, table by table. A table of patterns is replaced as a
/// whole, because its order counts, and so is one of another kind, which has other keys. A length in epochs
/// replaces one in steps.
pub(super) fn merge(base: &mut Table, over: &Table) {
    let is_of_other_kind = |base: &Table, over: &Table| {
        ["mode", "model_type"]
            .iter()
            .any(|kind| over.contains_key(*kind) && over.get(*kind) != base.get(*kind))
    };
    if over.contains_key(EPOCHS) && !over.contains_key(STEPS) {
        drop_steps(base);
    }
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Table(base)), Value::Table(over))
                if key != "parameters" && !is_of_other_kind(base, over) =>
            {
                merge(base, over);
            }
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

const EPOCHS: &str = "epochs";
const STEPS: &str = "steps";

/// Removes the length of a training in steps, and with it the interval of evaluations, which was chosen for
/// it: evaluations follow the epochs then.
fn drop_steps(training: &mut Table) {
    if training.remove(STEPS).is_some() {
        training.remove("evaluate_every");
    }
}

/// The parts of a dotted TOML key; none where it is not one.
fn key_parts(key: &str) -> Option<Vec<String>> {
    let mut table = toml::from_str::<Table>(&format!("{key} = 0")).ok()?;
    let mut parts = Vec::new();
    loop {
        let mut entries = table.into_iter();
        let (Some((part, inner)), None) = (entries.next(), entries.next()) else { return None };
        parts.push(part);
        match inner {
            Value::Table(inner) => table = inner,
            _ => return Some(parts),
        }
    }
}

/// Sets `a.b.c`; `a` and `a.b` must be tables, or absent.
fn assign(table: &mut Table, key: &[String], value: Value) -> Result<(), String> {
    match key {
        [] => Err("there is no key".to_owned()),
        [last] => {
            if last == EPOCHS {
                drop_steps(table);
            }
            table.insert(last.clone(), value);
            Ok(())
        }
        [head, rest @ ..] => {
            let inner = table.entry(head).or_insert_with(|| Value::Table(Table::new()));
            match inner {
                Value::Table(inner) => assign(inner, rest, value),
                _ => Err(format!("\"{head}\" is a value, not a table")),
            }
        }
    }
}

/// A TOML value, or the text itself as a string.
fn parse_value(text: &str) -> Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_key_that_holds_dots_is_quoted() {
        assert_eq!(key_parts("train.epochs").unwrap(), ["train", "epochs"]);
        assert_eq!(
            key_parts("train.parameters.\"vision_model.*\"").unwrap(),
            ["train", "parameters", "vision_model.*"]
        );
        for wrong in ["", "train..epochs", "train.parameters.vision_model.*", "a = 1\nb"] {
            assert_eq!(key_parts(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_variants_table_of_patterns_replaces_the_profiles_and_other_tables_merge() {
        let mut base: Table =
            toml::from_str("[train]\nepochs = 3\n[train.parameters]\n\"*\" = \"frozen\"").unwrap();
        let over: Table = toml::from_str("[train]\nbatch_size = 2\n[train.parameters]\n\"a\" = 0.5").unwrap();
        merge(&mut base, &over);
        let expected: Table =
            toml::from_str("[train]\nepochs = 3\nbatch_size = 2\n[train.parameters]\n\"a\" = 0.5").unwrap();
        assert_eq!(base, expected);
    }

    #[test]
    fn epochs_replace_the_steps_of_earlier_layers_and_not_those_beside_them() {
        let table = |text: &str| toml::from_str::<Table>(text).unwrap();
        let steps = table("train = { steps = 9, evaluate_every = 3, epochs = 1, batch_size = 2 }");
        let mut merged = steps.clone();
        merge(&mut merged, &table("train.epochs = 4"));
        assert_eq!(merged, table("train = { epochs = 4, batch_size = 2 }"));
        merge(&mut merged, &table("train = { epochs = 5, steps = 7, evaluate_every = 2 }"));
        assert_eq!(merged, table("train = { epochs = 5, steps = 7, evaluate_every = 2, batch_size = 2 }"));
        let mut set = steps.clone();
        apply(&mut set, "train.epochs=4").unwrap();
        assert_eq!(set, table("train = { epochs = 4, batch_size = 2 }"));
        // an interval that was not chosen for a number of steps stays
        let mut interval = table("train = { evaluate_every = 3, epochs = 1 }");
        merge(&mut interval, &table("train.epochs = 4"));
        assert_eq!(interval, table("train = { evaluate_every = 3, epochs = 4 }"));
        let mut both = table("train.epochs = 3\nscst.train.epochs = 1");
        both.get_mut("train").and_then(Value::as_table_mut).unwrap().insert(STEPS.into(), 9.into());
        inherit(&mut both);
        assert_eq!(both["scst"], table("scst.train.epochs = 1")["scst"], "its own epochs count");
    }
}
