//! `clips.json`: the test clips of a study, in the test split's order, written when the study begins. With each run's
//! captions it is all that a report needs to score captions again and to show the clips.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use data::datasets::Clip;
use data::tiny_world::scene::{Event, Scene};
use serde::{Deserialize, Serialize};
use train::files;

/// The file's name in a study's folder.
pub const CLIPS: &str = "clips.json";

/// One test clip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestClip {
    /// Its name, the `image_id` of its predictions.
    pub id: String,
    /// Its captions, as published; the answers, where there is a question.
    pub references: Vec<String>,
    /// Its video or image. A relative path counts from the study's folder.
    pub video: PathBuf,
    /// What is asked about it, where answers and not captions are predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// What it shows, where that is known: in the tiny world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<Scene>,
}

impl TestClip {
    /// A captioned clip of a data set.
    pub fn of(clip: &Clip, truth: Option<&Scene>) -> Self {
        Self {
            id: clip.id.clone(),
            references: clip.captions.clone(),
            video: clip.path.clone(),
            question: None,
            truth: truth.cloned(),
        }
    }

    /// Every question about a clip.
    pub fn asked<'a>(clip: &'a Clip, truth: Option<&'a Scene>) -> impl Iterator<Item = Self> + 'a {
        clip.questions.iter().map(move |question| Self {
            id: question.id.clone(),
            references: vec![question.answer.clone()],
            question: Some(question.text.clone()),
            ..Self::of(clip, truth)
        })
    }

    /// What happens in it, in a few words; none where that is not known.
    pub fn told(&self) -> Option<String> {
        let scene = self.truth.as_ref()?;
        let events: Vec<&str> = scene.events.iter().map(|&event| word(event)).collect();
        let named = |object: &data::tiny_world::scene::Object| {
            format!("{:?} {:?}", object.colour, object.shape).to_lowercase()
        };
        let second =
            scene.second.as_ref().map_or(String::new(), |second| format!("; beside it {}", named(second)));
        Some(format!("{}: {}{second}", named(&scene.main), events.join(", then ")))
    }
}

fn word(event: Event) -> &'static str {
    match event {
        Event::Left => "left",
        Event::Right => "right",
        Event::Up => "up",
        Event::Down => "down",
        Event::Grow => "grows",
        Event::Shrink => "shrinks",
        Event::Spin => "spins",
        Event::Blink => "blinks",
        Event::Recolour => "changes colour",
        Event::Still => "stays still",
    }
}

/// Writes `clips.json` into a study's folder. Relative paths of videos, which count from the working directory, are made
/// to count from the folder, so that runs and data can be moved together.
///
/// # Errors
/// When the folder cannot be written to.
pub fn write(folder: &Path, clips: &[TestClip]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let moved: Vec<TestClip> =
        clips.iter().map(|clip| TestClip { video: relative(folder, &clip.video), ..clip.clone() }).collect();
    Ok(files::replace_json(&folder.join(CLIPS), &moved)?)
}

/// Reads and checks `clips.json`; none where there is no such file.
///
/// # Errors
/// When it is damaged, or no list of clips with distinct ids and references.
pub(super) fn read(folder: &Path) -> anyhow::Result<Option<Vec<TestClip>>> {
    let path = folder.join(CLIPS);
    let Some(clips) = super::folder::read_json_if_there::<Vec<TestClip>>(&path)? else { return Ok(None) };
    let next = "`experiments ablation NAME --resume` writes it anew";
    let mut seen = HashSet::new();
    for clip in &clips {
        if !seen.insert(&clip.id) {
            bail!("{} has the clip {:?} twice; {next}", path.display(), clip.id);
        }
        if clip.references.is_empty() {
            bail!("{}: the clip {:?} has no reference; {next}", path.display(), clip.id);
        }
    }
    if clips.is_empty() {
        bail!("{} has no clip; {next}", path.display());
    }
    let questions = clips.iter().filter(|clip| clip.question.is_some()).count();
    if questions != 0 && questions != clips.len() {
        bail!(
            "{}: {questions} of {} clips have a question, expected all or none; {next}",
            path.display(),
            clips.len()
        );
    }
    Ok(Some(clips))
}

/// The way from a folder to a file, both counted from the working directory; the file's own path where there is none.
fn relative(folder: &Path, file: &Path) -> PathBuf {
    let (Ok(folder), Ok(file)) = (whole(folder), whole(file)) else { return file.to_owned() };
    let common = folder.components().zip(file.components()).take_while(|(a, b)| a == b).count();
    let shares_more_than_the_root =
        folder.components().take(common).any(|part| matches!(part, Component::Normal(_)));
    if !shares_more_than_the_root {
        return file;
    }
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    up.chain(file.components().skip(common)).collect()
}

/// An absolute path without links, also of a file that is not there.
fn whole(path: &Path) -> std::io::Result<PathBuf> {
    path.canonicalize().or_else(|_| std::path::absolute(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(id: &str, video: &Path) -> TestClip {
        TestClip {
            id: id.to_owned(),
            references: vec!["a dog".to_owned()],
            video: video.to_owned(),
            question: None,
            truth: None,
        }
    }

    #[test]
    fn what_is_written_is_read_and_its_paths_count_from_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let video = place.path().join("cache").join("a.webm");
        std::fs::create_dir(place.path().join("cache")).unwrap();
        std::fs::write(&video, b"x").unwrap();
        let folder = place.path().join("runs").join("study");
        write(&folder, &[clip("a", &video)]).unwrap();
        let read = read(&folder).unwrap().unwrap();
        assert_eq!(read[0].video, Path::new("../../cache/a.webm"));
        assert!(folder.join(&read[0].video).is_file());
        assert_eq!(relative(&folder, Path::new("/no-such-place/a.webm")), Path::new("/no-such-place/a.webm"));
    }

    #[test]
    fn a_list_that_was_edited_is_refused_with_the_clips_name() {
        let refused = |text: &str, words: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(CLIPS), text).unwrap();
            let message = format!("{:#}", read(folder.path()).unwrap_err());
            for word in ["clips.json"].iter().chain(words) {
                assert!(message.contains(word), "{word}: {message}");
            }
        };
        let one = r#"{"id": "a", "references": ["x"], "video": "a.webm"}"#;
        refused("[", &["damaged"]);
        refused("[]", &["no clip"]);
        refused(&format!("[{one}, {one}]"), &["\"a\" twice"]);
        refused(r#"[{"id": "a", "references": [], "video": "a.webm"}]"#, &["no reference"]);
        refused(r#"[{"id": "a", "references": ["x"]}]"#, &["video"]);
        let asked = r#"{"id": "b", "references": ["x"], "video": "b.webm", "question": "what?"}"#;
        refused(&format!("[{one}, {asked}]"), &["1 of 2 clips have a question"]);
        assert!(read(tempfile::tempdir().unwrap().path()).unwrap().is_none());
    }
}
