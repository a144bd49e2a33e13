//! All that is wrong with a table of settings, not the first of it alone.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::suggest::with_suggestion;

/// Gives a table its type.
pub(super) fn typed<T: DeserializeOwned>(mut table: Table) -> Result<T, Vec<String>> {
    let mut faults: Vec<String> = Vec::new();
    loop {
        let error = match Value::Table(table.clone()).try_into::<T>() {
            Ok(value) if faults.is_empty() => return Ok(value),
            Ok(_) => return Err(faults),
            Err(error) => error.to_string(),
        };
        let (path, message) = located(&error);
        // what is missing once a wrong value was taken out is no fault of the file's
        let is_consequence = message.contains("missing field");
        if faults.is_empty() || !is_consequence {
            let place = if path.is_empty() { String::new() } else { format!("{}: ", path.join(".")) };
            faults.push(format!("{place}{}", with_suggestion(message)));
        }
        // the reader stops at the first fault, so it is taken out and the rest is read again
        if is_consequence || !remove(&mut table, &path) {
            return Err(faults);
        }
    }
}

/// The path of keys that an error speaks of, and what it says. The last line of the reader's message is "in
/// `a.b`"; the name of an unknown key stands in the message itself.
fn located(error: &str) -> (Vec<&str>, &str) {
    let error = error.trim_end();
    let (message, place) = error.rsplit_once("\nin `").unwrap_or((error, ""));
    let mut path: Vec<&str> = place.trim_end_matches('`').split('.').filter(|key| !key.is_empty()).collect();
    if let Some(key) = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next())
        && path.last() != Some(&key)
    {
        path.push(key);
    }
    (path, message)
}

fn remove(table: &mut Table, path: &[&str]) -> bool {
    match path {
        [] => false,
        [key] => table.remove(*key).is_some(),
        [key, rest @ ..] => match table.get_mut(*key) {
            Some(Value::Table(inner)) => remove(inner, rest),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunConfig;

    fn faults(text: &str) -> Vec<String> {
        let profile = include_str!("../../configs/profiles/tiny.toml");
        let mut table: Table = toml::from_str(profile).unwrap();
        for (key, value) in toml::from_str::<Table>(text).unwrap() {
            match (table.get_mut(&key), value) {
                (Some(Value::Table(inner)), Value::Table(over)) => inner.extend(over),
                (_, value) => {
                    table.insert(key, value);
                }
            }
        }
        typed::<RunConfig>(table).map(|_| ()).err().unwrap_or_default()
    }

    #[test]
    fn every_fault_is_listed_with_its_path() {
        let found = faults(
            "chekpoint = \"x\"\n[train]\nepoch = 3\nbatch_size = \"many\"\nschedule = \"cosin\"\n[model]\nfusoin = \"concat\"",
        );
        for word in
            ["chekpoint: ", "train.epoch: ", "train.batch_size: ", "train.schedule: ", "model.fusoin: "]
        {
            assert_eq!(found.iter().filter(|fault| fault.starts_with(word)).count(), 1, "{word}: {found:#?}");
        }
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(found.iter().any(|fault| fault.ends_with("did you mean \"epochs\"?")), "{found:#?}");
    }

    #[test]
    fn a_table_without_faults_is_typed_and_what_is_missing_is_told_once() {
        assert!(faults("").is_empty());
        let error = typed::<RunConfig>(Table::new()).unwrap_err();
        assert_eq!(error.len(), 1);
        assert!(error[0].contains("missing field"), "{error:?}");
    }
}
