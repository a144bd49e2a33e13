//! Settings of a data set on disk.

use std::path::PathBuf;

use data::datasets::splits::Splits;
use data::datasets::{DataSet, DatasetPaths};
use serde::{Deserialize, Serialize};

/// File in the folder of a data set that lists the clips which training leaves out; `data check` writes it.
pub(crate) const SKIP_LIST: &str = "skip.json";

/// A data set on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatasetConfig {
    pub name: DataSet,
    /// Folder of its videos, and of its annotation files unless `annotations` names them.
    pub directory: PathBuf,
    /// The annotation file, or the folder of annotation files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<PathBuf>,
    /// Whether the split of the annotations is used although it is not the official one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_split: bool,
    /// List of clips to leave out; `skip.json` in the directory where it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_list: Option<PathBuf>,
}

impl DatasetConfig {
    /// Its files.
    pub(crate) fn place(&self) -> DatasetPaths {
        let beside = self.directory.join(SKIP_LIST);
        DatasetPaths {
            dataset: self.name,
            annotations: self.annotations.clone().unwrap_or_else(|| self.directory.clone()),
            videos: self.directory.clone(),
            splits: Splits { own: self.own_split || self.name == DataSet::Own, ..Splits::default() },
            skip: self.skip_list.clone().or_else(|| beside.is_file().then_some(beside)),
        }
    }
}
