//! Opens a data set as downloaded: finds annotation files, checks splits and finds the clips' files.

use super::skip::{SkipList, Skipped};
use super::splits::Splits;
use super::{Annotations, VideoSet, files, images, msrvtt, msvd, own, questions, source, vatex};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A supported data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataSet {
    /// MSR-VTT 10K.
    Msrvtt,
    /// The Microsoft Research Video Description corpus.
    Msvd,
    /// VATEX, its English captions.
    Vatex,
    /// Questions about MSR-VTT's clips.
    MsrvttQa,
    /// Questions about MSVD's clips.
    MsvdQa,
    /// COCO captions in Karpathy's split.
    Coco,
    /// Flickr8k.
    Flickr8k,
    /// A user's own: a folder and a captions file.
    Own,
}

impl DataSet {
    /// Every data set.
    pub const ALL: [Self; 8] = [
        Self::Msrvtt,
        Self::Msvd,
        Self::Vatex,
        Self::MsrvttQa,
        Self::MsvdQa,
        Self::Coco,
        Self::Flickr8k,
        Self::Own,
    ];

    /// Its name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Msrvtt => "msrvtt",
            Self::Msvd => "msvd",
            Self::Vatex => "vatex",
            Self::MsrvttQa => "msrvtt-qa",
            Self::MsvdQa => "msvd-qa",
            Self::Coco => "coco",
            Self::Flickr8k => "flickr8k",
            Self::Own => "own",
        }
    }

    /// The names of its annotation files, for messages.
    fn files(self) -> &'static str {
        match self {
            Self::Msrvtt => "*videodatainfo*.json or the .zip that holds it",
            Self::Msvd => "video_corpus.csv, or *sents_{train,val,test}*.txt with youtube_mapping.txt",
            Self::Vatex => "vatex_*.json or vatex_*.jsonl",
            Self::MsrvttQa | Self::MsvdQa => "{train,val,test}_qa.json or {train,val,test}.csv",
            Self::Coco => "dataset_coco.json, coco_karpathy_*.json, captions_*.json or *karpathy*.json",
            Self::Flickr8k => {
                "dataset_flickr8k.json, or Flickr8k.token.txt or captions.txt with Flickr_8k.*Images.txt"
            }
            Self::Own => "captions.csv, .tsv, .json, .jsonl or .txt",
        }
    }
}

impl std::fmt::Display for DataSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DataSet {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|dataset| dataset.name() == name);
        found.ok_or_else(|| Error::setting("dataset", Self::ALL.map(Self::name).join(", "), name))
    }
}

/// The location of a data set on this machine, and the clips to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetPaths {
    /// The data set.
    pub dataset: DataSet,
    /// The annotation file, or the folder of annotation files as downloaded.
    pub annotations: PathBuf,
    /// The folder of videos or images; subfolders are searched too.
    pub videos: PathBuf,
    /// The splits.
    pub splits: Splits,
    /// The list of clips to skip, which `experiments data check` writes.
    pub skip: Option<PathBuf>,
}

/// Reads a data set's annotations from one file or from every annotation file in a folder, gzipped or not.
///
/// # Errors
/// No annotation file; the errors of the format's reader.
pub fn annotations(dataset: DataSet, path: &Path) -> Result<Annotations> {
    let folder = path.is_dir();
    let found = if folder { Listing::of(path)? } else { Listing::beside(path) };
    let mut files = if folder { found.annotations(dataset) } else { vec![path.to_path_buf()] };
    // Files of several splits come first, then training, whatever the files' names.
    files.sort_by_key(|file| super::Split::of_file(file));
    if files.is_empty() {
        return Err(Error::NotFound {
            what: "annotation file",
            path: path.to_path_buf(),
            next: format!("{dataset} needs {}", dataset.files()),
        });
    }
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let mapping = |name: &str| found.named(name);
    let mut read = match dataset {
        DataSet::Msrvtt => msrvtt::read(&paths),
        DataSet::Msvd => {
            let names = mapping("youtube_mapping.txt");
            let is_table = paths.first().is_some_and(|path| plain_name(path).ends_with(".csv"));
            let read = if is_table { msvd::read_corpus } else { msvd::read_sentences };
            read(&paths, names.as_deref()).and_then(|set| {
                let lists = found.matching(|name| name.ends_with("_list.txt"));
                let lists: Vec<&Path> = lists.iter().map(PathBuf::as_path).collect();
                msvd::check_lists(&set, &lists).map(|()| set)
            })
        }
        DataSet::Vatex => vatex::read(&paths, mapping("vatex_mapping.txt").as_deref()),
        DataSet::MsrvttQa => questions::read_msrvtt(&paths),
        DataSet::MsvdQa => questions::read_msvd(&paths, mapping("youtube_mapping.txt").as_deref()),
        DataSet::Coco => images::read_coco(&paths),
        DataSet::Flickr8k => {
            let lists = found.matching(|name| name.ends_with("images.txt"));
            let lists: Vec<&Path> = lists.iter().map(PathBuf::as_path).collect();
            images::read_flickr8k(paths[0], &lists)
        }
        DataSet::Own => own::read(paths[0]),
    }?;
    read.source = path.to_path_buf();
    Ok(read)
}

/// Opens a data set: annotations, splits, files, and the clips to skip.
///
/// # Errors
/// As [`annotations`] and [`Splits::apply`]; [`Error::MissingClips`] for clips that have no file and are not
/// on the skip list; [`Error::StaleSkipList`] where the list does not match the files any more.
pub fn open(paths: &DatasetPaths) -> Result<VideoSet> {
    let annotated = annotations(paths.dataset, &paths.annotations)?;
    let annotated = paths.splits.apply(paths.dataset, annotated)?;
    let Some(skip) = &paths.skip else {
        return files::locate_all(annotated, &paths.videos);
    };
    let list = SkipList::read(skip)?;
    without_skipped(annotated, paths, &list, skip)
}

fn without_skipped(
    annotated: Annotations,
    paths: &DatasetPaths,
    list: &SkipList,
    list_path: &Path,
) -> Result<VideoSet> {
    let total = annotated.clips.len();
    let source = annotated.source.clone();
    let order: HashMap<String, usize> =
        annotated.clips.iter().enumerate().map(|(place, clip)| (clip.id.clone(), place)).collect();
    let (mut set, missing) = files::locate(annotated, &paths.videos)?;
    let listed: HashMap<&str, &Skipped> =
        list.clips.iter().map(|skipped| (skipped.id.as_str(), skipped)).collect();
    let mut stale = Vec::new();
    if list.dataset != paths.dataset.name() {
        stale.push(format!("it is for data set {}, not for {}", list.dataset, paths.dataset));
    }
    let mut skipped: Vec<Skipped> = Vec::new();
    let mut is_listed = |id: &str, split, file: Option<&Path>| {
        let entry = listed.get(id).copied();
        stale.extend(entry.and_then(|entry| entry.still_holds(file).err()));
        skipped.extend(entry.map(|entry| Skipped { split, ..entry.clone() }));
        entry.is_some()
    };
    let unlisted = missing.into_iter().filter(|clip| !is_listed(&clip.id, clip.split, None));
    let unlisted: Vec<String> = unlisted.map(|clip| clip.id).collect();
    set.clips.retain(|clip| !is_listed(&clip.id, clip.split, Some(&clip.path)));
    if !stale.is_empty() {
        return Err(Error::StaleSkipList { reasons: stale, path: list_path.to_path_buf() });
    }
    if !unlisted.is_empty() {
        return Err(files::missing_clips(source, &paths.videos, total, unlisted));
    }
    skipped.sort_by_key(|skipped| order.get(&skipped.id).copied());
    set.skipped = skipped;
    Ok(set)
}

/// The files of a folder, without its subfolders.
struct Listing(Vec<PathBuf>);

impl Listing {
    fn of(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io("list the annotations", folder))? {
            let path = entry.map_err(Error::io("list the annotations", folder))?.path();
            if path.is_file() && !source::is_macs(&file_name(&path)) {
                files.push(path);
            }
        }
        files.sort();
        // Of an archive and its unpacked file, the unpacked one is used.
        let names: HashSet<String> = files.iter().map(|path| file_name(path)).collect();
        files.retain(|path| {
            let inner =
                source::zipped_name(path).or_else(|| file_name(path).strip_suffix(".gz").map(str::to_owned));
            inner.is_none_or(|inner| !names.contains(&inner))
        });
        Ok(Self(files))
    }

    /// The files in the folder of a file; none where the folder cannot be listed.
    fn beside(path: &Path) -> Self {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::of(folder).unwrap_or(Self(Vec::new()))
    }

    fn matching(&self, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        self.0.iter().filter(|path| wanted(&plain_name(path))).cloned().collect()
    }

    fn named(&self, name: &str) -> Option<PathBuf> {
        self.matching(|own| own == name).into_iter().next()
    }

    /// The annotation files of a data set. Of several forms, the first one that exists is used.
    fn annotations(&self, dataset: DataSet) -> Vec<PathBuf> {
        let first_of = |forms: &[&dyn Fn(&str) -> bool]| {
            forms.iter().map(|form| self.matching(form)).find(|found| !found.is_empty()).unwrap_or_default()
        };
        let of_split = |name: &str| super::Split::of_file(Path::new(name)).is_some();
        let is_json = |name: &str| name.ends_with(".json") || name.ends_with(".jsonl");
        match dataset {
            DataSet::Msrvtt => first_of(&[
                &|name| name.contains("videodatainfo") && (is_json(name) || name.ends_with(".zip")),
                &|name| name.contains("msrvtt") && name.ends_with(".json"),
            ])
            .into_iter()
            .chain(self.matching(|name| name == "train_val_annotation.zip"))
            .collect(),
            DataSet::Msvd => first_of(&[
                &|name| name == "video_corpus.csv" || name == "msr video description corpus.csv",
                &|name| name.contains("sents_") && name.ends_with(".txt") && of_split(name),
                &|name| name.ends_with(".csv") && of_split(name),
            ]),
            DataSet::Vatex => {
                self.matching(|name| name.starts_with("vatex") && is_json(name) && of_split(name))
            }
            DataSet::MsrvttQa | DataSet::MsvdQa => {
                first_of(&[&|name| name.contains("qa") && is_json(name) && of_split(name), &|name| {
                    name.ends_with(".csv") && of_split(name)
                }])
            }
            DataSet::Coco => first_of(&[
                &|name| name == "dataset_coco.json",
                &|name| name.contains("karpathy") && is_json(name) && of_split(name),
                &|name| name.starts_with("captions_") && is_json(name) && of_split(name),
            ]),
            DataSet::Flickr8k => first_of(&[
                &|name| name == "dataset_flickr8k.json",
                &|name| name == "flickr8k.token.txt" || name == "captions.txt",
                &|name| name == "captions.json",
            ]),
            DataSet::Own => {
                ["captions.csv", "captions.tsv", "captions.jsonl", "captions.json", "captions.txt"]
                    .iter()
                    .find_map(|name| self.named(name))
                    .into_iter()
                    .collect()
            }
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
}

/// A file's name in lower case, without `.gz`.
fn plain_name(path: &Path) -> String {
    let name = file_name(path).to_lowercase();
    name.strip_suffix(".gz").map_or(name.clone(), str::to_owned)
}
