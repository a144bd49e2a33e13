//! `report.md`: the report as Markdown.

use std::fmt::Write as _;

use super::contents::{Block, Section};
use super::folder::Study;
use crate::text::escape::markdown;

/// Test clips shown with their captions.
const EXAMPLES: usize = 5;
/// References shown of each.
const REFERENCES: usize = 3;

/// The whole file.
pub(super) fn page(study: &Study, about: &str, sections: &[Section]) -> String {
    let summary = &study.summary;
    let mut text = format!(
        "# {}: {}\n\n{}\n",
        markdown(&summary.ablation),
        markdown(&summary.question),
        markdown(about)
    );
    for section in sections {
        if section.is_folded {
            text.push_str(&examples(study));
        }
        let _ = write!(text, "\n## {}\n", section.title); // writing to a String does not fail
        for block in &section.blocks {
            text.push('\n');
            text.push_str(&of(block));
        }
    }
    text
}

fn of(block: &Block) -> String {
    match block {
        Block::Text(text) => markdown(text) + "\n",
        Block::Points(points) => points.iter().map(|point| format!("- {}\n", markdown(point))).collect(),
        Block::Terms(terms) => terms
            .iter()
            .map(|(term, meaning)| format!("- **{}**: {}\n", markdown(term), markdown(meaning)))
            .collect(),
        Block::Table(caption, table) => format!("{}:\n\n{}", markdown(caption), table.to_markdown()),
        Block::Plots(file, title, _) => format!("![{}]({file})\n", markdown(title)),
    }
}

/// Evenly spaced clips, with the captions of the first finished seed of each variant.
fn examples(study: &Study) -> String {
    let Some(clips) = &study.clips else { return String::new() };
    let mut text = "\n## Test clips\n\nUnedited captions of evenly spaced clips of the test split, from the first finished seed of each \
                    variant. report.html plays all clips.\n"
        .to_owned();
    for at in (0..clips.len()).step_by((clips.len() / EXAMPLES).max(1)).take(EXAMPLES) {
        let clip = &clips[at];
        let _ = write!(text, "\n**{}**\n\n", markdown(&clip.id));
        if let Some(question) = &clip.question {
            let _ = writeln!(text, "- question: {}", markdown(question));
        }
        for reference in clip.references.iter().take(REFERENCES) {
            let _ = writeln!(text, "- reference: {}", markdown(reference));
        }
        for variant in &study.variants {
            let first = variant.runs.iter().find_map(|run| run.captions().ok());
            let absence = || match variant.finished().next() {
                Some(_) => "captions are missing".to_owned(),
                None => variant.absence(),
            };
            let caption = first.map_or_else(absence, |scored| scored.captions[at].clone());
            let _ = writeln!(text, "- **{}**: {}", markdown(&variant.name), markdown(&caption));
        }
    }
    text
}
