//! The published splits. Scores on other clips are not comparable: a split that differs from the published
//! one is an error that names the clips, unless the user declares it as their own.

use super::files::composed;
use super::{Annotations, DataSet, Split, source};
use crate::error::{Error, Result};
use crate::format::thousands;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

const FORMAT: &str = "split file";

/// The assignment of clips to splits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Splits {
    /// Files that list the clips of a split; without files, splits are as annotated.
    pub files: Vec<(Split, PathBuf)>,
    /// Whether the splits are the user's own: they are not compared with the published ones.
    pub own: bool,
}

impl Splits {
    /// Assigns the annotated clips to the splits of the files, if there are any, and checks the result. Clips
    /// that are in none of the files are removed.
    ///
    /// # Errors
    /// A file with a clip that has no annotations, or two files with the same clip; [`Error::SplitMismatch`]
    /// for a split that differs from the published one and is not the user's own.
    pub fn apply(&self, dataset: DataSet, mut annotations: Annotations) -> Result<Annotations> {
        if !self.files.is_empty() {
            let mut listed: HashMap<String, Split> = HashMap::new();
            let known: HashMap<String, &str> = annotations
                .clips
                .iter()
                .flat_map(|clip| {
                    std::iter::once(&clip.id)
                        .chain(&clip.names)
                        .map(|name| (composed(name), clip.id.as_str()))
                })
                .collect();
            for (split, path) in &self.files {
                for name in read_ids(path)? {
                    let fault =
                        |reason: String| Error::malformed(FORMAT, path, format!("clip {name}"), reason);
                    let id = known
                        .get(&composed(&name))
                        .ok_or_else(|| fault(format!("{} has no such clip", annotations.source.display())))?;
                    if let Some(other) =
                        listed.insert((*id).to_owned(), *split).filter(|other| other != split)
                    {
                        return Err(fault(format!("is in split {other} and in split {split}")));
                    }
                }
            }
            annotations.clips.retain_mut(|clip| {
                clip.split = *listed.get(&clip.id).unwrap_or(&clip.split);
                listed.contains_key(&clip.id)
            });
        }
        if !self.own {
            check(dataset, &annotations)?;
        }
        Ok(annotations)
    }
}

/// The ids of a split file: one per line, the `video_id` column of a table, or a JSON array. Repeated ids are
/// removed.
///
/// # Errors
/// The file is missing or broken, or has no id.
pub fn read_ids(path: &Path) -> Result<Vec<String>> {
    let bytes = source::bytes(path, FORMAT)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| Error::malformed(FORMAT, path, "the text", error.to_string()))?;
    let first = text.lines().next().unwrap_or_default();
    let quoted = first.trim().trim_matches('"');
    let names_columns = first.contains(',') || first.contains('\t') || COLUMNS.contains(&quoted);
    let mut ids: Vec<String> = if text.trim_start().starts_with('[') {
        source::parse(&bytes, path, FORMAT)?
    } else if names_columns {
        let table = source::table(path, FORMAT)?;
        let column = table.column(&COLUMNS)?;
        table.rows().map(|row| row.text(column).map(str::to_owned)).collect::<Result<_>>()?
    } else {
        text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    };
    let mut seen = HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    if ids.is_empty() {
        return Err(Error::malformed(FORMAT, path, "the whole file", "lists no clip"));
    }
    Ok(ids)
}

const COLUMNS: [&str; 5] = ["video_id", "video", "clip", "id", "image"];

/// What is counted, and the number in each published split.
fn counts(dataset: DataSet) -> Option<(&'static str, [usize; 3])> {
    Some(match dataset {
        DataSet::Msrvtt => ("clips", [6513, 497, 2990]),
        DataSet::Msvd => ("clips", [1200, 100, 670]),
        DataSet::Vatex => ("clips", [25_991, 3000, 6000]),
        DataSet::MsrvttQa => ("questions", [158_581, 12_278, 72_821]),
        DataSet::MsvdQa => ("questions", [30_933, 6415, 13_157]),
        DataSet::Coco => ("images", [113_287, 5000, 5000]),
        DataSet::Flickr8k => ("images", [6000, 1000, 1000]),
        DataSet::Own => return None,
    })
}

/// Clips of VATEX's private test set, which is published without captions.
const VATEX_PRIVATE: usize = 6278;

/// The size of a published data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Clips or images in train, validate and test.
    pub clips: [usize; 3],
    /// Captions or questions in the training split.
    pub learned: usize,
}

/// The size of a published data set, without its files; `None` for a user's own.
///
/// MSR-VTT has 20 captions per clip and VATEX ten; those of MSVD and COCO were counted.
#[must_use]
pub fn sizes(dataset: DataSet) -> Option<Sizes> {
    let of_questions = |clips: DataSet| Some((counts(clips)?.1, counts(dataset)?.1[0]));
    let of_captions = |learned| Some((counts(dataset)?.1, learned));
    let (clips, learned) = match dataset {
        DataSet::Msrvtt => of_captions(6513 * 20),
        DataSet::Msvd => of_captions(48_774),
        DataSet::Vatex => of_captions(25_991 * 10),
        DataSet::MsrvttQa => of_questions(DataSet::Msrvtt),
        DataSet::MsvdQa => of_questions(DataSet::Msvd),
        DataSet::Coco => of_captions(566_747),
        DataSet::Flickr8k => of_captions(6000 * 5),
        DataSet::Own => None,
    }?;
    Some(Sizes { clips, learned })
}

/// The ids of a published split of the data sets that number their clips across the splits.
fn ids(dataset: DataSet, split: Split) -> Option<Vec<String>> {
    let (prefix, first, clips) = match dataset {
        DataSet::Msrvtt | DataSet::MsrvttQa => ("video", 0, DataSet::Msrvtt),
        DataSet::Msvd => ("vid", 1, DataSet::Msvd),
        _ => return None,
    };
    let (_, counts) = counts(clips)?;
    let start = first + counts[..split as usize].iter().sum::<usize>();
    Some((start..start + counts[split as usize]).map(|number| format!("{prefix}{number}")).collect())
}

/// Checks that every split with clips is the published one. Empty splits pass, because some data sets publish
/// each split in its own file; using an empty split is an error later.
///
/// # Errors
/// [`Error::SplitMismatch`] with the clips that are missing or too many.
pub fn check(dataset: DataSet, annotations: &Annotations) -> Result<()> {
    for split in Split::ALL {
        let clips: Vec<&str> = annotations.split(split).map(|clip| clip.id.as_str()).collect();
        if clips.is_empty() {
            continue;
        }
        let mismatch = |what, expected, got, difference| Error::SplitMismatch {
            dataset: dataset.name(),
            split: split.name(),
            what,
            expected,
            got,
            difference: Box::from(difference),
            path: annotations.source.clone(),
        };
        if let Some(expected) = ids(dataset, split)
            && let Some(difference) = difference(&expected, &clips)
        {
            let got = clips.iter().collect::<HashSet<_>>().len();
            return Err(mismatch("clips", expected.len(), got, difference));
        }
        let Some((what, mut counts)) = counts(dataset) else { continue };
        if dataset == DataSet::Vatex && annotations.split(split).all(|clip| clip.captions.is_empty()) {
            counts[Split::Test as usize] = VATEX_PRIVATE;
        }
        let questions = annotations.split(split).map(|clip| clip.questions.len()).sum();
        let got = if what == "questions" { questions } else { clips.len() };
        if got != counts[split as usize] {
            return Err(mismatch(what, counts[split as usize], got, String::new()));
        }
    }
    Ok(())
}

/// The ids that are missing and those that are too many, as text; `None` if there are none.
fn difference(expected: &[String], got: &[&str]) -> Option<String> {
    fn without<'a>(ids: &[&'a str], others: &[&str]) -> Vec<&'a str> {
        let others: HashSet<&str> = others.iter().copied().collect();
        ids.iter().copied().filter(|id| !others.contains(id)).collect()
    }
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    let differences = [("missing", without(&expected, got)), ("too many", without(got, &expected))];
    let text = |(what, ids): &(&str, Vec<&str>)| {
        let more = ids.len().checked_sub(5).filter(|more| *more > 0);
        let more = more.map_or(String::new(), |more| format!(" and {} more", thousands(more)));
        format!("; {what}: {}{more}", ids[..ids.len().min(5)].join(", "))
    };
    let texts: Vec<String> = differences.iter().filter(|(_, ids)| !ids.is_empty()).map(text).collect();
    (!texts.is_empty()).then(|| texts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::Annotated;
    use proptest::prelude::*;

    fn annotations(ids: impl Iterator<Item = usize>, split: Split) -> Annotations {
        let clips = ids.map(|number| Annotated {
            id: format!("video{number}"),
            names: Vec::new(),
            captions: vec!["a".into()],
            questions: Vec::new(),
            split,
        });
        Annotations {
            name: "msrvtt".into(),
            source: "videodatainfo.json".into(),
            clips: clips.collect(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_split_that_is_one_off_names_the_clip() {
        let check = |ids: std::ops::Range<usize>, split| check(DataSet::Msrvtt, &annotations(ids, split));
        check(0..6513, Split::Train).unwrap();
        check(7010..10_000, Split::Test).unwrap();
        let message = check(0..6512, Split::Train).unwrap_err().to_string();
        assert!(message.contains("6,513 clips, got 6,512; missing: video6512;"), "{message}");
        let message = check(6512..7010, Split::Validate).unwrap_err().to_string();
        assert!(message.contains("497 clips, got 498; too many: video6512;"), "{message}");
        // The right number of wrong clips is an error too.
        let message = check(1..6514, Split::Train).unwrap_err().to_string();
        assert!(message.contains("missing: video0; too many: video6513"), "{message}");
        let message = check(0..100, Split::Train).unwrap_err().to_string();
        assert!(message.contains("video104 and 6,408 more"), "{message}");
    }

    #[test]
    fn the_private_test_set_of_vatex_has_its_own_size() {
        let check = |count: usize, caption: Option<&str>| {
            let mut set = annotations(0..count, Split::Test);
            set.clips
                .iter_mut()
                .for_each(|clip| clip.captions = caption.iter().map(ToString::to_string).collect());
            check(DataSet::Vatex, &set)
        };
        check(6000, Some("a")).unwrap();
        check(6278, None).unwrap();
        assert!(check(6000, None).unwrap_err().to_string().contains("6,278"));
        assert!(check(6278, Some("a")).unwrap_err().to_string().contains("6,000"));
    }

    #[test]
    fn decomposed_names_in_a_split_file_are_the_composed_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, "cafe\u{301}\n").unwrap();
        let mut set = annotations(0..2, Split::Train);
        set.clips[1].id = "caf\u{e9}".into();
        let own = Splits { files: vec![(Split::Test, path)], own: true };
        let set = own.apply(DataSet::Own, set).unwrap();
        assert_eq!((set.clips.len(), set.clips[0].split), (1, Split::Test));
    }

    #[test]
    fn split_files_come_as_lines_tables_and_arrays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("split");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_ids(&path)
        };
        for text in [
            "video1\nvideo2\n",
            "video1\r\n\r\nvideo2",
            "\"video_id\"\n\"video1\"\n\"video2\"\n",
            "key,vid_key,video_id,sentence\nr0,m1,video1,\"two\nlines\"\nr1,m2,video2,x\nr2,m1,video1,y\n",
            "[\"video1\", \"video2\"]",
            "\u{feff}[\"video1\", \"video2\"]",
            "\u{feff}video1\nvideo2\n",
            "\u{feff}video_id,x\nvideo1,1\nvideo2,2\n",
        ] {
            assert_eq!(read(text).unwrap(), ["video1", "video2"], "{text:?}");
        }
        assert!(read("").unwrap_err().to_string().contains("lists no clip"));
        assert!(read("a,b\n1,2\n").unwrap_err().to_string().contains("expected a column video_id"));
    }

    #[test]
    fn own_splits_are_taken_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let all = annotations(0..10, Split::Test);
        let files = vec![(Split::Train, file("a", "video7\nvideo2\n")), (Split::Test, file("b", "video1\n"))];
        let own = Splits { files: files.clone(), own: true };
        let set = own.apply(DataSet::Msrvtt, all.clone()).unwrap();
        let seen: Vec<(&str, Split)> = set.clips.iter().map(|clip| (&*clip.id, clip.split)).collect();
        assert_eq!(seen, [("video1", Split::Test), ("video2", Split::Train), ("video7", Split::Train)]);
        let official = Splits { files, own: false };
        assert!(matches!(official.apply(DataSet::Msrvtt, all.clone()), Err(Error::SplitMismatch { .. })));
        let twice = Splits {
            files: vec![(Split::Train, file("c", "video1")), (Split::Test, file("d", "video1"))],
            own: true,
        };
        assert!(
            twice.apply(DataSet::Msrvtt, all.clone()).unwrap_err().to_string().contains("in split train and")
        );
        let unknown = Splits { files: vec![(Split::Train, file("e", "video11"))], own: true };
        assert!(unknown.apply(DataSet::Msrvtt, all).unwrap_err().to_string().contains("has no such clip"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            let _ = read_ids(file.path());
        }
    }
}
