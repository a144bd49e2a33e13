//! Where shared caches are: METEOR's tables, rendered worlds, decoded frames and ViT features.
//!
//! They are searched in the same order everywhere: the folder of `--cache`; else `$RECAP_CACHE`; else `cache`
//! in the working directory, where it exists; else `recap` in the user's cache directory (`~/.cache/recap` on
//! Linux). METEOR's tables, which are only read, are also found in `cache` in a directory above, and
//! `$RECAP_METEOR` may name their folder.

use std::path::{Path, PathBuf};

use metrics::Error;
use metrics::meteor::MeteorTables;

/// Environment variable that names the cache folder.
const VARIABLE: &str = "RECAP_CACHE";

/// The cache folder, and the folders in which tables that were made earlier are searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caches {
    /// New files are written here.
    folder: PathBuf,
    /// Read-only data is searched in these, in order.
    searched: Vec<PathBuf>,
}

impl Caches {
    /// The caches of this process; `chosen` is the folder of `--cache`.
    pub fn new(chosen: Option<&Path>) -> Self {
        let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        let here = std::env::current_dir().unwrap_or_default();
        Self::among(chosen.map(Path::to_owned), variable, &here, dirs::cache_dir())
    }

    fn among(chosen: Option<PathBuf>, variable: Option<PathBuf>, here: &Path, user: Option<PathBuf>) -> Self {
        let local = PathBuf::from("cache");
        let user = user.map(|user| user.join("recap"));
        let shared = match (&variable, &user) {
            (Some(folder), _) => folder,
            (None, Some(user)) if !here.join(&local).is_dir() => user,
            (None, _) => &local,
        };
        let folder = chosen.clone().unwrap_or_else(|| shared.clone());
        let above = here.ancestors().skip(1).map(|above| above.join(&local)).filter(|cache| cache.is_dir());
        let searched = match variable {
            Some(variable) => chosen.into_iter().chain([variable]).collect(),
            None => chosen.into_iter().chain([local.clone()]).chain(above).chain(user).collect(),
        };
        Self { folder, searched }
    }

    /// The folder of worlds, frames, features and pretrained checkpoints.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// METEOR's tables; `named` is the folder of `--meteor-data`.
    ///
    /// # Errors
    /// When no folder has tables, with the folders that were searched; when tables are damaged.
    pub fn meteor_tables(&self, named: Option<&Path>) -> Result<MeteorTables, Error> {
        let variable = std::env::var_os("RECAP_METEOR").map(PathBuf::from);
        let places: Vec<PathBuf> = match named.map(Path::to_owned).or(variable) {
            Some(folder) => vec![folder],
            None => self.searched.iter().map(|folder| folder.join("meteor")).collect(),
        };
        MeteorTables::find(&places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_wins_over_the_variable_and_that_over_both_folders_of_which_the_local_one_must_exist() {
        let desk = tempfile::tempdir().unwrap();
        let (here, home) = (desk.path().join("a/b"), desk.path().join("home"));
        std::fs::create_dir_all(&here).unwrap();
        let of = |chosen: Option<&str>, variable: Option<&str>| {
            Caches::among(chosen.map(Into::into), variable.map(Into::into), &here, Some(home.clone()))
        };
        assert_eq!(of(None, None).folder(), home.join("recap"));
        std::fs::create_dir(desk.path().join("cache")).unwrap();
        assert_eq!(of(None, None).folder(), home.join("recap"));
        assert_eq!(of(None, None).searched[1], desk.path().join("cache"), "tables are also found above");
        std::fs::create_dir(here.join("cache")).unwrap();
        assert_eq!(of(None, None).folder(), Path::new("cache"));
        assert_eq!(of(None, Some("variable")).folder(), Path::new("variable"));
        assert_eq!(of(Some("option"), Some("variable")).folder(), Path::new("option"));
        assert_eq!(of(Some("option"), Some("variable")).searched, ["option", "variable"].map(PathBuf::from));
    }

    #[test]
    fn missing_tables_are_reported_with_every_folder_that_was_searched() {
        let desk = tempfile::tempdir().unwrap();
        let caches = Caches::among(None, None, desk.path(), Some(desk.path().join("home")));
        let message = caches.meteor_tables(None).err().unwrap().to_string();
        assert!(message.contains("cache/meteor") && message.contains("home/recap/meteor"), "{message}");
    }
}
