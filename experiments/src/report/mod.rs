//! What a study shows: `report.html`, `report.md` and the plots, made from the study's folder and nothing else, so that
//! they can be made anew at any time and of a study that is half done.
//!
//! In the order of making: [`folder`] reads and checks, [`scores`] scores the captions again clip by clip, `differences`
//! compares variants, `contents` and `drawings` say what is to be said, `html` and `markdown` put it down.

pub mod clips;
mod contents;
mod differences;
mod drawings;
pub mod escape;
pub(crate) mod figures;
pub mod folder;
mod html;
mod markdown;
mod media;
mod published;
pub mod scores;

use std::path::Path;

use train::files;

pub use clips::TestClip;
pub use figures::thousands;
pub use published::Published;

use crate::plots;
use crate::statistics::Resampling;
use contents::{Block, Section, about, sections};
use folder::Study;

/// Prints the table of results, and writes report and plots into the study's folder.
///
/// # Errors
/// When the folder is no study's, a file in it is damaged or disagrees with another, or it cannot be written to.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    let study = Study::read(folder)?;
    let sections = sections(&study, Resampling::default());
    let about = about(&study);
    for (file, title, panels) in plots_of(&sections) {
        files::replace(&folder.join(file), plots::file(title, panels).as_bytes())?;
    }
    let page = html::page(&study, &about, &sections);
    files::replace(&folder.join("report.html"), page.as_bytes())?;
    let text = markdown::page(&study, &about, &sections);
    files::replace(&folder.join("report.md"), text.as_bytes())?;
    print(&sections);
    println!("\nreport: {}", folder.join("report.html").display());
    Ok(())
}

fn plots_of(sections: &[Section]) -> impl Iterator<Item = (&str, &str, &[plots::Panel])> {
    sections.iter().flat_map(|section| &section.blocks).filter_map(|block| match block {
        Block::Plots(file, title, panels) => Some((file.as_str(), title.as_str(), panels.as_slice())),
        _ => None,
    })
}

/// What a terminal shows: what is missing, results, and differences in the first figure.
fn print(sections: &[Section]) {
    for section in sections.iter().filter(|section| ["gaps", "results", "differences"].contains(&section.id))
    {
        let mut is_first = true;
        for block in &section.blocks {
            match block {
                Block::Text(text) => println!("\n{text}"),
                Block::Points(points) => points.iter().for_each(|point| println!("\nmissing: {point}")),
                // the other figures' differences are too wide for a terminal
                Block::Table(_, table) if is_first || section.id == "results" => {
                    println!("\n{}", table.to_text());
                }
                Block::Table(..) | Block::Terms(_) | Block::Plots(..) => {}
            }
            is_first = false;
        }
    }
}
