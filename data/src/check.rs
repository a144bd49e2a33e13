//! Reading a whole data set once, before training: which clips are there, which can be decoded, and what is in them.

use crate::datasets::files::Directory;
use crate::datasets::skip::{Reason, SkipList, Skipped};
use crate::datasets::{Account, Annotated, Place, Split, annotations, thousands};
use crate::error::Result;
use crate::progress::{Counter, OnProgress};
use crate::store::{digest_file, hex};
use crate::video::{self, FrameRequest};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What looking into a file gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Inspected {
    /// Frames that were decoded.
    pub frames: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Seconds, where the file tells.
    pub duration_s: Option<f64>,
    /// Why it cannot be decoded, or not to its end.
    pub error: Option<String>,
}

/// Looks into a file; called from several threads.
pub type Inspect<'a> = &'a (dyn Fn(&Path) -> Inspected + Sync);

/// One annotated clip.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClipReport {
    /// The clip's name.
    pub id: String,
    /// Its split.
    pub split: Split,
    /// Its captions.
    pub captions: usize,
    /// Its questions.
    pub questions: usize,
    /// Its file; `None` where there is none.
    pub path: Option<PathBuf>,
    /// The file's length.
    pub bytes: u64,
    /// What is in it; `None` without a file.
    pub found: Option<Inspected>,
}

impl ClipReport {
    /// Why training leaves the clip out; `None` for one in order.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        let (Some(path), Some(found)) = (&self.path, &self.found) else {
            return Some(Reason::Missing);
        };
        let error = found.error.clone()?;
        Some(Reason::Undecodable { path: path.clone(), bytes: self.bytes, error })
    }
}

/// Two splits that share something, so that a score on one tells about the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// What is shared.
    pub what: Shared,
    /// A clip of one split.
    pub first: (Split, String),
    /// A clip of another.
    pub second: (Split, String),
}

/// What two clips share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shared {
    /// The file's content.
    File,
    /// The video on the web that both were cut from, told by their names (`ID_START_END`).
    Source,
}

/// Everything that a check found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The data set.
    pub dataset: String,
    /// Its annotations.
    pub annotations: PathBuf,
    /// Its videos.
    pub videos: PathBuf,
    /// What is wrong with the splits, if anything is.
    pub splits: Option<String>,
    /// Every annotated clip, in the annotations' order.
    pub clips: Vec<ClipReport>,
    /// Clips that two splits share.
    pub overlaps: Vec<Overlap>,
}

/// Reads the whole data set at a place, with all cores, and reports. A missing or broken clip, or a wrong split, is part
/// of the report; `place.skip` is not looked at.
///
/// # Errors
/// Annotations that cannot be read; a folder that cannot be listed.
pub fn check(place: &Place, on_progress: OnProgress<'_>) -> Result<Report> {
    check_with(place, &inspect, on_progress)
}

/// As [`check`], with another way to look into files.
///
/// # Errors
/// As [`check`].
pub fn check_with(place: &Place, inspect: Inspect<'_>, on_progress: OnProgress<'_>) -> Result<Report> {
    let annotated = annotations(place.dataset, &place.annotations)?;
    let mut own = place.splits.clone();
    own.own = true;
    let annotated = own.apply(place.dataset, annotated)?;
    let splits = if place.splits.own {
        None
    } else {
        crate::datasets::splits::check(place.dataset, &annotated).err().map(|error| error.to_string())
    };
    let directory = Directory::list(&place.videos)?;
    let counter = Counter::new("checking clips", annotated.clips.len(), on_progress);
    let looked: Vec<(ClipReport, Option<String>)> = annotated
        .clips
        .par_iter()
        .map(|clip| {
            let report = look(clip, &directory, inspect);
            counter.add(1);
            report
        })
        .collect();
    let overlaps = overlaps(&annotated.clips, &looked);
    Ok(Report {
        dataset: place.dataset.name().into(),
        annotations: place.annotations.clone(),
        videos: place.videos.clone(),
        splits,
        clips: looked.into_iter().map(|(report, _)| report).collect(),
        overlaps,
    })
}

/// A clip's report, and a hash that another file with the same content shares.
fn look(clip: &Annotated, directory: &Directory, inspect: Inspect<'_>) -> (ClipReport, Option<String>) {
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
    let mut key = Sha256::new();
    let content = digest_file(&mut key, "", &path).map(|()| hex(key));
    report.bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    report.found = Some(match &content {
        Ok(_) => inspect(&path),
        Err(error) => Inspected { error: Some(error.to_string()), ..Inspected::default() },
    });
    // Empty files are all alike and overlap with nothing.
    let content = content.ok().filter(|_| report.bytes > 0);
    (report, content)
}

/// Decodes eight frames from all over a clip.
fn inspect(path: &Path) -> Inspected {
    let request = FrameRequest { size: None, ..FrameRequest::uniform(8, 1) };
    match video::decode(path, &request) {
        Ok(frames) => Inspected {
            frames: frames.count,
            width: frames.width,
            height: frames.height,
            ..Inspected::default()
        },
        Err(error) => Inspected { error: Some(error.to_string()), ..Inspected::default() },
    }
}

fn overlaps(clips: &[Annotated], looked: &[(ClipReport, Option<String>)]) -> Vec<Overlap> {
    let mut firsts: HashMap<(Shared, String), Vec<&Annotated>> = HashMap::new();
    let mut found = Vec::new();
    for (clip, (_, content)) in clips.iter().zip(looked) {
        let source = std::iter::once(&clip.id).chain(&clip.names).find_map(|name| source_of(name));
        let keys = content.iter().map(|content| (Shared::File, content.clone()));
        for key in keys.chain(source.map(|source| (Shared::Source, source.to_owned()))) {
            let known = firsts.entry(key.clone()).or_default();
            // One clip of each other split is enough to tell.
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

/// The eleven characters that name a video on YouTube in a clip's name `ID_START_END`.
fn source_of(name: &str) -> Option<&str> {
    let mut parts = name.rsplitn(3, '_');
    let is_time = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let times = [parts.next()?, parts.next()?].into_iter().all(is_time);
    parts.next().filter(|id| times && id.len() == 11)
}

impl Report {
    /// The clips that training leaves out.
    #[must_use]
    pub fn skip_list(&self) -> SkipList {
        let skipped = self.clips.iter().filter_map(|clip| {
            clip.reason().map(|reason| Skipped { id: clip.id.clone(), split: clip.split, reason })
        });
        SkipList { dataset: self.dataset.clone(), clips: skipped.collect() }
    }

    /// How many clips of a split are in order.
    #[must_use]
    pub fn account(&self, split: Split) -> Account {
        let mut account = Account { used: 0, annotated: 0 };
        for clip in self.clips.iter().filter(|clip| clip.split == split) {
            account.annotated += 1;
            account.used += usize::from(clip.reason().is_none());
        }
        account
    }

    /// Whether every clip is in order, the splits are right and share nothing.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.splits.is_none() && self.overlaps.is_empty() && self.clips.iter().all(|c| c.reason().is_none())
    }

    fn found(&self) -> impl Iterator<Item = &Inspected> {
        self.clips.iter().filter_map(|clip| clip.found.as_ref()).filter(|found| found.error.is_none())
    }
}

/// Lists of clips are cut after this many; the skip list has all.
const SHOWN: usize = 10;

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: {}, {}", self.dataset, self.annotations.display(), self.videos.display())?;
        for split in Split::ALL {
            let clips: Vec<&ClipReport> = self.clips.iter().filter(|clip| clip.split == split).collect();
            let sum = |count: fn(&ClipReport) -> usize| thousands(clips.iter().map(|clip| count(clip)).sum());
            let (captions, questions) = (sum(|clip| clip.captions), sum(|clip| clip.questions));
            write!(f, "  {:<9} {}", split.name(), self.account(split))?;
            writeln!(f, ", {captions} captions, {questions} questions")?;
        }
        if let Some(splits) = &self.splits {
            writeln!(f, "  splits    {splits}")?;
        }
        let mut seconds: Vec<f64> = self.found().filter_map(|found| found.duration_s).collect();
        seconds.sort_by(f64::total_cmp);
        if let (Some(shortest), Some(longest)) = (seconds.first(), seconds.last()) {
            let median = seconds[seconds.len() / 2];
            let sum: f64 = seconds.iter().sum();
            writeln!(
                f,
                "  durations {shortest:.1} to {longest:.1} s, median {median:.1} s, {:.1} h in all",
                sum / 3600.0
            )?;
        }
        let mut sizes: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for found in self.found() {
            *sizes.entry((found.width, found.height)).or_default() += 1;
        }
        let mut sizes: Vec<_> = sizes.into_iter().collect();
        sizes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        if !sizes.is_empty() {
            let mut line = String::new();
            for ((width, height), count) in sizes.iter().take(SHOWN) {
                write!(line, ", {width}x{height} ({})", thousands(*count))?;
            }
            let more = if sizes.len() > SHOWN { ", …" } else { "" };
            writeln!(f, "  sizes     {}{more}", line.trim_start_matches(", "))?;
        }
        let missing: Vec<&str> =
            self.clips.iter().filter(|clip| clip.path.is_none()).map(|clip| clip.id.as_str()).collect();
        if !missing.is_empty() {
            let more = if missing.len() > SHOWN { ", …" } else { "" };
            let shown = missing[..missing.len().min(SHOWN)].join(", ");
            writeln!(f, "  missing   {}: {shown}{more}", thousands(missing.len()))?;
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
    fn names_tell_the_video_a_clip_was_cut_from() {
        assert_eq!(source_of("-4wsuPCjDBc_5_15"), Some("-4wsuPCjDBc"));
        assert_eq!(source_of("-_hbPLsZvvo_5_8"), Some("-_hbPLsZvvo"));
        assert_eq!(source_of("b_BuSVZwq6M_1_9"), Some("b_BuSVZwq6M"));
        assert_eq!(source_of("G9zN5TTuGO4_000179_000189"), Some("G9zN5TTuGO4"));
        for name in ["video7", "vid1", "-4wsuPCjDBc_5", "-4wsuPCjDBc_5_x", "my_clip_1_2"] {
            assert_eq!(source_of(name), None, "{name}");
        }
    }
}
