//! `clips.json`: the test clips of a study in the order of the test split, written when the study begins. A
//! report scores the predictions of each run again with it and shows the clips.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, ensure};
use data::datasets::Clip;
use data::tiny_world::scene::{Event, Object, Scene};
use serde::{Deserialize, Serialize};
use train::files;

use super::{CLIPS, read_json};

/// One test clip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestClip {
    /// Its id in the predictions.
    pub id: String,
    /// Its published captions; the answer, where there is a question.
    pub references: Vec<String>,
    /// Its video or image. A relative path starts at the study's folder.
    pub video: PathBuf,
    /// The question about it, where answers are predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// Its content, which is known in the tiny world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<Scene>,
}

impl TestClip {
    /// A clip with its captions.
    pub(crate) fn captioned(clip: &Clip, truth: Option<&Scene>) -> Self {
        Self {
            id: clip.id.clone(),
            references: clip.captions.clone(),
            video: clip.path.clone(),
            question: None,
            truth: truth.cloned(),
        }
    }

    /// One entry for each question about a clip.
    pub(crate) fn asked<'a>(clip: &'a Clip, truth: Option<&'a Scene>) -> impl Iterator<Item = Self> + 'a {
        clip.questions.iter().map(move |question| Self {
            id: question.id.clone(),
            references: vec![question.answer.clone()],
            question: Some(question.text.clone()),
            ..Self::captioned(clip, truth)
        })
    }

    /// Its content in a few words; none where that is not known.
    pub(crate) fn content(&self) -> Option<String> {
        let scene = self.truth.as_ref()?;
        let events: Vec<&str> = scene.events.iter().map(|&event| word(event)).collect();
        let named = |object: &Object| format!("{:?} {:?}", object.colour, object.shape).to_lowercase();
        let beside = |second| format!("; beside it {}", named(second));
        let second = scene.second.as_ref().map(beside).unwrap_or_default();
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

/// Saves `clips.json` in a study's folder. Relative paths of videos are changed from the working directory to
/// that folder, so that runs and data can be moved together.
pub(crate) fn save(folder: &Path, clips: &[TestClip]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let moved: Vec<TestClip> =
        clips.iter().map(|clip| TestClip { video: relative(folder, &clip.video), ..clip.clone() }).collect();
    Ok(files::replace_json(&folder.join(CLIPS), &moved)?)
}

/// Reads and checks `clips.json`; none where it does not exist.
pub(crate) fn read(folder: &Path) -> anyhow::Result<Option<Vec<TestClip>>> {
    let path = folder.join(CLIPS);
    let Some(clips) = read_json::<Vec<TestClip>>(&path)? else { return Ok(None) };
    let next = "`experiments ablation NAME --resume` writes it again";
    let (mut seen, shown) = (HashSet::new(), path.display());
    for clip in &clips {
        let id = &clip.id;
        ensure!(seen.insert(id), "{shown} has the clip {id:?} twice; {next}");
        ensure!(!clip.references.is_empty(), "{shown}: the clip {id:?} has no reference; {next}");
    }
    ensure!(!clips.is_empty(), "{shown} has no clip; {next}");
    let questions = clips.iter().filter(|clip| clip.question.is_some()).count();
    ensure!(
        questions == 0 || questions == clips.len(),
        "{shown}: {questions} of {} clips have a question, expected all or none; {next}",
        clips.len()
    );
    Ok(Some(clips))
}

/// The relative path from a folder to a file; the absolute path where they share only the root.
fn relative(folder: &Path, file: &Path) -> PathBuf {
    let (Ok(folder), Ok(file)) = (absolute(folder), absolute(file)) else { return file.to_owned() };
    let common = folder.components().zip(file.components()).take_while(|(a, b)| a == b).count();
    let shares_more_than_the_root =
        folder.components().take(common).any(|part| matches!(part, Component::Normal(_)));
    if !shares_more_than_the_root {
        return file;
    }
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    up.chain(file.components().skip(common)).collect()
}

/// An absolute path without links, also of a file that does not exist.
fn absolute(path: &Path) -> std::io::Result<PathBuf> {
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
    fn saved_clips_are_read_back_with_paths_relative_to_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let video = place.path().join("cache").join("a.webm");
        std::fs::create_dir(place.path().join("cache")).unwrap();
        std::fs::write(&video, b"x").unwrap();
        let folder = place.path().join("runs").join("study");
        save(&folder, &[clip("a", &video)]).unwrap();
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
