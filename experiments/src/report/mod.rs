//! The report of a study: `report.html`, `report.md` and the plots. It is made from the study's folder alone,
//! so that it can be made again at any time, and for a study that is not finished.
//!
//! In order: `folder` reads and checks the files, `scores` scores the captions again clip by clip,
//! `differences` compares variants, `paper` has the paper's numbers, `contents` and `drawings` are the
//! sections, `html` and `markdown` print them.

mod contents;
mod differences;
mod drawings;
pub(crate) mod folder;
mod html;
mod markdown;
mod media;
mod paper;
mod plots;
pub(crate) mod scores;
pub(crate) mod statistics;

use std::path::Path;

use train::files;

use crate::runtime::Caches;
use contents::{Block, Section, about, sections};
use folder::Study;
use statistics::Resampling;

/// Prints the table of results, and saves report and plots in the study's folder.
pub(crate) fn save(folder: &Path, caches: &Caches) -> anyhow::Result<()> {
    let study = Study::read(folder, caches)?;
    let sections = sections(&study, Resampling::default());
    let about = about(&study);
    for block in sections.iter().flat_map(|section| &section.blocks) {
        if let Block::Plots(file, title, panels) = block {
            files::replace(&folder.join(file), plots::file(title, panels).as_bytes())?;
        }
    }
    files::replace(&folder.join("report.html"), html::page(&study, &about, &sections).as_bytes())?;
    files::replace(&folder.join("report.md"), markdown::page(&study, &about, &sections).as_bytes())?;
    print(&sections);
    println!("\nreport: {}", folder.join("report.html").display());
    Ok(())
}

/// Prints gaps, results, and the differences in the first metric.
fn print(sections: &[Section]) {
    let printed = ["gaps", "results", "differences"];
    for section in sections.iter().filter(|section| printed.contains(&section.id)) {
        for (at, block) in section.blocks.iter().enumerate() {
            match block {
                Block::Text(text) => println!("\n{text}"),
                Block::Points(points) => points.iter().for_each(|point| println!("\nmissing: {point}")),
                // the differences in the other metrics are too wide for a terminal
                Block::Table(_, table) if at == 0 || section.id == "results" => {
                    println!("\n{}", table.to_text());
                }
                Block::Table(..) | Block::Terms(_) | Block::Plots(..) => {}
            }
        }
    }
}
