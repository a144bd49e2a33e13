//! MSRVTT-QA and MSVD-QA: questions with one-word answers about the clips of MSR-VTT and MSVD, as published
//! JSON (`train_qa.json`: `video_id`, `question`, `answer`, `id`) or as CSV (`video`, `question`, `answer`,
//! `qid`). The file's name contains the split; MSVD-QA's splits differ from those of MSVD captioning.

use super::msvd::Mapping;
use super::{Annotations, ClipCollector, Id, Question, source, split_of_file};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

const FORMAT: &str = "question file";

#[derive(Deserialize)]
struct Record {
    #[serde(alias = "video")]
    video_id: Id,
    question: String,
    answer: String,
    #[serde(alias = "qid", alias = "question_id")]
    id: Id,
}

/// Reads MSRVTT-QA's files, one per split; clip 7 is `video7`.
///
/// # Errors
/// A file that is missing, breaks the format or has no split in its name; a question without text or answer.
pub fn read_msrvtt(paths: &[&Path]) -> Result<Annotations> {
    read(paths, "msrvtt-qa", "video", &Mapping::default())
}

/// Reads MSVD-QA's files, one per split; clip 7 is `vid7`, with `youtube_mapping.txt` its file's name too.
///
/// # Errors
/// As [`read_msrvtt`].
pub fn read_msvd(paths: &[&Path], mapping: Option<&Path>) -> Result<Annotations> {
    let mapping = mapping.map(Mapping::read).transpose()?.unwrap_or_default();
    read(paths, "msvd-qa", "vid", &mapping)
}

/// The most frequent answer to each kind of question: the best constant prediction. Of equally frequent
/// answers, the alphabetically first.
#[must_use]
pub fn most_frequent_answers<'a, K: Ord>(
    questions: impl IntoIterator<Item = (K, &'a str)>,
) -> BTreeMap<K, String> {
    let mut counts: BTreeMap<K, BTreeMap<&str, usize>> = BTreeMap::new();
    for (kind, answer) in questions {
        *counts.entry(kind).or_default().entry(answer).or_default() += 1;
    }
    let most = |counts: BTreeMap<&str, usize>| {
        let best = counts.into_iter().rev().max_by_key(|(_, count)| *count); // the last of equals, so the first word
        best.map_or(String::new(), |(answer, _)| answer.to_owned())
    };
    counts.into_iter().map(|(kind, counts)| (kind, most(counts))).collect()
}

fn read(paths: &[&Path], name: &str, prefix: &str, mapping: &Mapping) -> Result<Annotations> {
    ClipCollector::read_files(FORMAT, name, paths, |clips, path| {
        let split = split_of_file(FORMAT, path)?;
        for record in records(path)? {
            let id = record.id.text();
            if record.question.trim().is_empty() || record.answer.trim().is_empty() {
                let reason = "has no text or no answer";
                return Err(Error::malformed(FORMAT, path, format!("question {id}"), reason));
            }
            let clip = clips.clip(&record.video_id.prefixed(prefix), split)?;
            if clip.names.is_empty() {
                clip.names.extend(mapping.youtube(&clip.id).map(str::to_owned));
            }
            clip.questions.push(Question { id, text: record.question, answer: record.answer });
        }
        Ok(())
    })
}

fn records(path: &Path) -> Result<Vec<Record>> {
    let bytes = source::bytes(path, FORMAT)?;
    if source::is_json(&bytes) {
        return source::json_records(path, FORMAT);
    }
    let table = source::table_of(&bytes, path, FORMAT)?;
    let columns = [
        table.column(&["video_id", "video"])?,
        table.column(&["question"])?,
        table.column(&["answer"])?,
        table.column(&["qid", "id", "question_id"])?,
    ];
    let mut records = Vec::new();
    for row in table.rows() {
        let [video, question, answer, id] = columns.map(|column| row.text(column).map(str::to_owned));
        records.push(Record {
            video_id: Id::Text(video?),
            question: question?,
            answer: answer?,
            id: Id::Text(id?),
        });
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::testing::file;
    use proptest::prelude::*;

    #[test]
    fn json_and_csv_read_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let json = file(
            &folder,
            "val_qa.json",
            r#"[{"answer":"couch","category_id":14,"id":5,"question":"what is it?","video_id":6513},
                {"answer":"man","category_id":14,"id":6,"question":"who, then","video_id":6513}]"#,
        );
        let csv = file(
            &folder,
            "val.csv",
            "video,question,answer,qid,type\n6513,what is it?,couch,5,14\n6513,\"who, then\",man,6,14\n",
        );
        let (json, csv) = (read_msrvtt(&[&json]).unwrap(), read_msrvtt(&[&csv]).unwrap());
        assert_eq!(json.clips, csv.clips);
        assert_eq!(json.clips[0].id, "video6513");
        assert_eq!(json.clips[0].questions[1].answer, "man");
    }

    #[test]
    fn halves_of_questions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, "val.csv", "video,question,answer,qid\n6513,what is it?,,5\n");
        assert!(read_msrvtt(&[&path]).unwrap_err().to_string().contains("question 5"));
        let path = file(&folder, "val.csv", "video,question,qid\n6513,what is it?,5\n");
        assert!(read_msrvtt(&[&path]).unwrap_err().to_string().contains("expected a column answer"));
    }

    #[test]
    fn the_first_of_the_most_frequent_answers_counts() {
        let questions = [
            ("who", "man"),
            ("who", "woman"),
            ("who", "man"),
            ("what", "dog"),
            ("what", "cat"),
            ("what", "ant"),
        ];
        let answers = most_frequent_answers(questions);
        assert_eq!((answers["who"].as_str(), answers["what"].as_str()), ("man", "ant"));
        assert_eq!(most_frequent_answers::<&str>([]).len(), 0);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[\\[\\]{}\":,a-z0-9 \n]{0,200}") {
            let folder = tempfile::tempdir().unwrap();
            let _ = read_msrvtt(&[&file(&folder, "train.json", &text)]);
        }
    }
}
