//! Text output: aligned tables, escaping for HTML, Markdown and URLs, the names of the metrics and how
//! numbers are printed. It reads and writes no files and imports no other folder.

pub(crate) mod escape;
pub(crate) mod metrics;
pub(crate) mod numbers;
mod table;

pub(crate) use data::format::thousands;
pub(crate) use table::Table;

use train::TrainError;

/// The values without repetitions, each in the place of its first occurrence.
pub(crate) fn distinct<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

/// An error and its causes in one line. The typed errors of the libraries print their causes themselves,
/// which are therefore not repeated.
pub(crate) fn error_chain(error: &anyhow::Error) -> String {
    let mut lines = Vec::new();
    for cause in error.chain() {
        lines.push(cause.to_string());
        if cause.is::<data::Error>() || cause.is::<::metrics::Error>() || cause.is::<TrainError>() {
            break;
        }
    }
    lines.join(": ")
}
