//! Checks a whole data set before training: missing files, damaged files, and content that splits share.

use crate::datasets::files::Directory;
use crate::datasets::skip::{Reason, SkipList, Skipped};
use crate::datasets::splits::Splits;
use crate::datasets::{Annotated, DatasetPaths, Split, SplitUsage, annotations, splits};
use crate::digest::sha256;
use crate::error::Result;
use crate::format::{listed, thousands};
use crate::progress::{Counter, OnProgress};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The content of a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Inspected {
    /// Number of decoded frames.
    pub frames: usize,
    /// Pixels per row.
    pub width: usize,
    /// Rows per frame.
    pub height: usize,
    /// Duration in seconds, where the file declares it.
    pub duration_s: Option<f64>,
    /// What is unusual about its pictures.
    pub warning: Option<String>,
    /// Why it cannot be decoded, or not completely.
    pub error: Option<String>,
}

/// A function that inspects a file; it is called from several threads.
pub type Inspect<'a> = &'a (dyn Fn(&Path) -> Inspected + Sync);

/// The report of one annotated clip.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClipReport {
    /// The clip's id.
    pub id: String,
    /// Its split.
    pub split: Split,
    /// Number of captions.
    pub captions: usize,
    /// Number of questions.
    pub questions: usize,
    /// Its file, if there is one.
    pub path: Option<PathBuf>,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Its content; `None` without a file.
    pub found: Option<Inspected>,
}

impl ClipReport {
    /// Why training skips the clip; `None` for a valid clip.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        let (Some(path), Some(found)) = (&self.path, &self.found) else {
            return Some(Reason::Missing);
        };
        let error = found.error.clone()?;
        Some(Reason::Undecodable { path: path.clone(), bytes: self.bytes, error })
    }
}

/// Two clips of different splits that share content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// The shared content.
    pub what: Shared,
    /// A clip of the first split.
    pub first: (Split, String),
    /// A clip of the second split.
    pub second: (Split, String),
}

/// The content that two clips share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shared {
    /// Equal files.
    File,
    /// The YouTube video that both were cut from, by their names (`ID_START_END`).
    Source,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The data set's name.
    pub dataset: String,
    /// Its annotation file or folder.
    pub annotations: PathBuf,
    /// Its folder of videos.
    pub videos: PathBuf,
    /// How the splits differ from the published ones, if they do.
    pub splits: Option<String>,
    /// Every annotated clip, in the annotations' order.
    pub clips: Vec<ClipReport>,
    /// Content that splits share.
    pub overlaps: Vec<Overlap>,
}

/// Checks a whole data set on all cores; `inspect` decodes a file. Missing and damaged clips and wrong splits
/// are part of the report; `paths.skip` is ignored.
///
/// # Errors
/// Annotations that cannot be read; a folder that cannot be listed.
pub fn check(paths: &DatasetPaths, inspect: Inspect<'_>, on_progress: OnProgress<'_>) -> Result<Report> {
    let annotated = annotations(paths.dataset, &paths.annotations)?;
    let own = Splits { own: true, ..paths.splits.clone() };
    let annotated = own.apply(paths.dataset, annotated)?;
    let published = (!paths.splits.own).then(|| splits::check(paths.dataset, &annotated));
    let splits = published.and_then(|checked| checked.err()).map(|error| error.to_string());
    let directory = Directory::list(&paths.videos)?;
    let counter = Counter::new("checking clips", annotated.clips.len(), on_progress);
    let check = |clip| {
        let checked = check_clip(clip, &directory, inspect);
        counter.add(1);
        checked
    };
    let checked: Vec<(ClipReport, Option<String>)> = annotated.clips.par_iter().map(check).collect();
    let overlaps = overlaps(&annotated.clips, &checked);
    Ok(Report {
        dataset: paths.dataset.name().into(),
        annotations: paths.annotations.clone(),
        videos: paths.videos.clone(),
        splits,
        clips: checked.into_iter().map(|(report, _)| report).collect(),
        overlaps,
    })
}

/// A clip's report, and the digest of its file.
fn check_clip(clip: &Annotated, directory: &Directory, inspect: Inspect<'_>) -> (ClipReport, Option<String>) {
    let path = directory.find_clip(clip);
    let mut report = ClipReport {
        id: clip.id.clone(),
        split: clip.split,
        captions: clip.captions.len(),
        questions: clip.questions.len(),
        path: path.clone(),
        bytes: 0,
        found: None,
    };
    let Some(path) = path else { return (report, None) };
    let content = sha256(&path);
    report.bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    report.found = Some(match &content {
        Ok(_) => inspect(&path),
        Err(error) => Inspected { error: Some(error.to_string()), ..Inspected::default() },
    });
    // Empty files are equal, but no overlap.
    let content = content.ok().filter(|_| report.bytes > 0);
    (report, content)
}

fn overlaps(clips: &[Annotated], checked: &[(ClipReport, Option<String>)]) -> Vec<Overlap> {
    let mut firsts: HashMap<(Shared, String), Vec<&Annotated>> = HashMap::new();
    let mut found = Vec::new();
    for (clip, (_, content)) in clips.iter().zip(checked) {
        let source = std::iter::once(&clip.id).chain(&clip.names).find_map(|name| source_of(name));
        let keys = content.iter().map(|content| (Shared::File, content.clone()));
        for key in keys.chain(source.map(|source| (Shared::Source, source.to_owned()))) {
            let known = firsts.entry(key.clone()).or_default();
            // One clip of each other split is enough.
            for first in known.iter().filter(|first| first.split != clip.split) {
                found.push(Overlap {
                    what: key.0,
                    first: (first.split, first.id.clone()),
                    second: (clip.split, clip.id.clone()),
                });
            }
            if known.iter().all(|first| first.split != clip.split) {
                known.push(clip);
            }
        }
    }
    found
}

/// The YouTube id, eleven characters, in a clip's name `ID_START_END`.
fn source_of(name: &str) -> Option<&str> {
    let mut parts = name.rsplitn(3, '_');
    let is_time = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let times = [parts.next()?, parts.next()?].into_iter().all(is_time);
    parts.next().filter(|id| times && id.len() == 11)
}

impl Report {
    /// The clips that training skips.
    #[must_use]
    pub fn skip_list(&self) -> SkipList {
        let skipped = self.clips.iter().filter_map(|clip| {
            clip.reason().map(|reason| Skipped { id: clip.id.clone(), split: clip.split, reason })
        });
        SkipList { dataset: self.dataset.clone(), clips: skipped.collect() }
    }

    /// How many clips of a split are valid.
    #[must_use]
    pub fn usage(&self, split: Split) -> SplitUsage {
        let clips = || self.clips.iter().filter(|clip| clip.split == split);
        SplitUsage {
            used: clips().filter(|clip| clip.reason().is_none()).count(),
            annotated: clips().count(),
        }
    }

    /// Whether every clip is valid, and the splits are the published ones and share no content.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.splits.is_none() && self.overlaps.is_empty() && self.clips.iter().all(|c| c.reason().is_none())
    }

    fn found(&self) -> impl Iterator<Item = &Inspected> {
        self.clips.iter().filter_map(|clip| clip.found.as_ref()).filter(|found| found.error.is_none())
    }
}

/// Maximum number of listed clips; the skip list has all.
const SHOWN: usize = 10;

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: {}, {}", self.dataset, self.annotations.display(), self.videos.display())?;
        for split in Split::ALL {
            let clips: Vec<&ClipReport> = self.clips.iter().filter(|clip| clip.split == split).collect();
            let sum = |count: fn(&ClipReport) -> usize| thousands(clips.iter().map(|clip| count(clip)).sum());
            let (captions, questions) = (sum(|clip| clip.captions), sum(|clip| clip.questions));
            write!(f, "  {:<9} {}", split.name(), self.usage(split))?;
            writeln!(f, ", {captions} captions, {questions} questions")?;
        }
        if let Some(splits) = &self.splits {
            writeln!(f, "  splits    {splits}")?;
        }
        let mut seconds: Vec<f64> = self.found().filter_map(|found| found.duration_s).collect();
        seconds.sort_by(f64::total_cmp);
        if let (Some(shortest), Some(longest)) = (seconds.first(), seconds.last()) {
            let median = seconds[seconds.len() / 2];
            let hours = seconds.iter().sum::<f64>() / 3600.0;
            write!(f, "  durations {shortest:.1} to {longest:.1} s, median {median:.1} s")?;
            writeln!(f, ", {hours:.1} h in all")?;
        }
        let mut sizes: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for found in self.found() {
            *sizes.entry((found.width, found.height)).or_default() += 1;
        }
        let mut sizes: Vec<_> = sizes.into_iter().collect();
        sizes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let size = |((width, height), count)| format!("{width}x{height} ({})", thousands(count));
        let sizes: Vec<String> = sizes.into_iter().map(size).collect();
        if !sizes.is_empty() {
            writeln!(f, "  sizes     {}", listed(&sizes, SHOWN))?;
        }
        let missing = self.clips.iter().filter(|clip| clip.path.is_none());
        let missing: Vec<&str> = missing.map(|clip| clip.id.as_str()).collect();
        if !missing.is_empty() {
            writeln!(f, "  missing   {}: {}", thousands(missing.len()), listed(&missing, SHOWN))?;
        }
        let broken: Vec<(&str, String)> = self
            .clips
            .iter()
            .filter_map(|clip| match clip.reason()? {
                Reason::Missing => None,
                Reason::Undecodable { error, .. } => Some((clip.id.as_str(), error)),
            })
            .collect();
        if !broken.is_empty() {
            writeln!(f, "  undecodable {}", thousands(broken.len()))?;
            for (id, error) in broken.iter().take(SHOWN) {
                writeln!(f, "    {id}: {error}")?;
            }
            if broken.len() > SHOWN {
                writeln!(f, "    …")?;
            }
        }
        let warned: Vec<(&str, &str)> = self
            .clips
            .iter()
            .filter_map(|clip| Some((clip.id.as_str(), clip.found.as_ref()?.warning.as_deref()?)))
            .collect();
        if !warned.is_empty() {
            writeln!(f, "  warnings  {}", thousands(warned.len()))?;
            for (id, warning) in warned.iter().take(SHOWN) {
                writeln!(f, "    {id}: {warning}")?;
            }
        }
        for what in [Shared::File, Shared::Source] {
            let found: Vec<&Overlap> = self.overlaps.iter().filter(|overlap| overlap.what == what).collect();
            let Some(first) = found.first() else { continue };
            let pairs: BTreeSet<(Split, Split)> =
                found.iter().map(|overlap| (overlap.first.0, overlap.second.0)).collect();
            let between: Vec<String> = pairs.iter().map(|(a, b)| format!("{a} and {b}")).collect();
            let shared = match what {
                Shared::File => "the same file",
                Shared::Source => "cut from the same video",
            };
            writeln!(
                f,
                "  overlaps  {} clips of {} are {shared}: {} and {}",
                thousands(found.len()),
                between.join(", "),
                first.first.1,
                first.second.1
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clips_name_contains_its_youtube_id() {
        assert_eq!(source_of("-4wsuPCjDBc_5_15"), Some("-4wsuPCjDBc"));
        assert_eq!(source_of("-_hbPLsZvvo_5_8"), Some("-_hbPLsZvvo"));
        assert_eq!(source_of("b_BuSVZwq6M_1_9"), Some("b_BuSVZwq6M"));
        assert_eq!(source_of("G9zN5TTuGO4_000179_000189"), Some("G9zN5TTuGO4"));
        for name in ["video7", "vid1", "-4wsuPCjDBc_5", "-4wsuPCjDBc_5_x", "my_clip_1_2"] {
            assert_eq!(source_of(name), None, "{name}");
        }
    }
}
