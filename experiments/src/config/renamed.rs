//! Keys of older configurations, and their present names.

use toml::{Table, Value};

/// The tables that hold a key, the key, and its present name: a key of the same table, or a whole path where
/// it has a dot.
const RENAMED: &[(&[&str], &str, &str)] = &[
    (&["train", "text"], "first_learning_rate", "warmup_learning_rate"),
    (&["train", "text"], "last_learning_rate", "min_learning_rate"),
    (&["train", "text"], "clip_norm", "max_grad_norm"),
    (&["train", "text"], "by_length", "group_by_length"),
    (&["train", "text"], "keep", "keep_checkpoints"),
    (&["frames"], "keep", "storage"),
    (&["reward"], "write", "decoding"),
    (&["reward"], "by_length", "normalize_length"),
    (&["answering"], "most_prompt_tokens", "max_prompt_tokens"),
    (&["answering"], "most_answer_tokens", "max_answer_tokens"),
    (&["first_stage"], "most_tokens", "max_tokens"),
    (&["sentences"], "keep", "word_keep_probability"),
    (&["sentences"], "continued", "prefix_probability"),
    (&["evaluate"], "prompt", "text.prompt"),
    (
        &["evaluate"],
        "max_new_tokens",
        "generate.max_new_tokens, and text.max_tokens for captions in training",
    ),
    (&["evaluate"], "min_new_tokens", "generate.min_new_tokens"),
    (&["evaluate"], "num_beams", "generate.num_beams"),
    (&["evaluate"], "length_penalty", "generate.length_penalty"),
    (&["evaluate"], "repetition_penalty", "generate.repetition_penalty"),
];

/// Takes the renamed keys out of a table of settings.
///
/// # Returns
/// A sentence for each, with its path and its present name.
pub(super) fn take(table: &mut Table) -> Vec<String> {
    let mut faults = Vec::new();
    take_from(table, "", "", &mut faults);
    faults
}

fn take_from(table: &mut Table, name: &str, path: &str, faults: &mut Vec<String>) {
    for (_, old, new) in RENAMED.iter().filter(|(parents, ..)| parents.contains(&name)) {
        if table.remove(*old).is_some() {
            let new = if new.contains('.') { (*new).to_owned() } else { format!("{path}{new}") };
            faults.push(format!("{path}{old}: was renamed to {new}"));
        }
    }
    for (key, value) in table.iter_mut() {
        if let Value::Table(inner) = value {
            take_from(inner, key, &format!("{path}{key}."), faults);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_renamed_key_is_refused_with_its_present_name() {
        for (parents, old, new) in RENAMED {
            for parent in *parents {
                let text = format!("[scst.{parent}]\n{old} = 1\nother = 2");
                let mut table: Table = toml::from_str(&text).unwrap();
                let faults = take(&mut table);
                assert_eq!(faults.len(), 1, "{parent}.{old}");
                assert!(
                    faults[0].starts_with(&format!("scst.{parent}.{old}: was renamed to ")),
                    "{faults:?}"
                );
                assert!(faults[0].contains(new), "{faults:?}");
                assert_eq!(take(&mut table), Vec::<String>::new(), "only once");
            }
        }
    }
}
