//! `report.html`: one file that needs no network. It contains tables and plots; the clips, which may be
//! thousands, are data of which the page's script shows a few at a time.

use serde_json::{Value, json};

use super::contents::{Block, Section};
use super::folder::{RunState, Study};
use super::media;
use super::plots::{HATCH, STYLE};
use super::scores::Measure;
use crate::text::Table;
use crate::text::escape::{html, script};
use crate::text::numbers::NumberFormat;

const PAGE_STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
const CONTROLS: &str = include_str!("page/clips.html");

/// Only the files of the clips are loaded, and only the script of the page runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      img-src 'self' data: file:; media-src 'self' data: file:; base-uri 'none'; form-action 'none'";

/// The whole page.
pub(super) fn page(study: &Study, about: &str, sections: &[Section]) -> String {
    let title = html(&study.summary.ablation);
    let question = html(&study.summary.question);
    let has_clips = study.clips.is_some();
    let link = |id: &str, title: &str| format!("<li><a href=\"#{id}\">{title}</a></li>");
    let mut links = String::new();
    let mut body = String::new();
    for section in sections {
        if section.is_folded && has_clips {
            links.push_str(&link("clips", "Test clips"));
            body.push_str(CONTROLS);
        }
        links.push_str(&link(section.id, section.title));
        let blocks = blocks(&section.blocks);
        let (id, title) = (section.id, section.title);
        body.push_str(&match section.is_folded {
            false => format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{blocks}</section>\n"),
            true => format!(
                "<section id=\"{id}\">\n<details>\n<summary><h2>{title}</h2></summary>\n{blocks}</details>\n</section>\n"
            ),
        });
    }
    let skip = if has_clips { "<a class=\"skip\" href=\"#clips\">Skip to the test clips</a>\n" } else { "" };
    let about = html(about);
    let data = script(&clips(study).to_string());
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <title>{title}: {question}</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <style>\n{PAGE_STYLE}{STYLE}</style>\n</head>\n<body>\n{skip}\
         <svg width=\"0\" height=\"0\" class=\"plot definitions\" aria-hidden=\"true\">{HATCH}</svg>\n\
         <header>\n<p class=\"name\">{title}</p>\n<h1>{question}</h1>\n<p>{about}</p>\n</header>\n\
         <nav aria-label=\"Sections\"><ul>{links}</ul></nav>\n<main>\n{body}</main>\n\
         <script type=\"application/json\" id=\"data\">{data}</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

/// Consecutive plots are side by side.
fn blocks(blocks: &[Block]) -> String {
    let is_plots = |block: Option<&Block>| matches!(block, Some(Block::Plots(..)));
    let mut text = String::new();
    for (at, block) in blocks.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| blocks.get(at));
        if is_plots(Some(block)) && !is_plots(before) {
            text.push_str("<figure>\n");
        }
        text.push_str(&of(block));
        if is_plots(Some(block)) && !is_plots(blocks.get(at + 1)) {
            text.push_str("</figure>\n");
        }
    }
    text
}

fn of(block: &Block) -> String {
    match block {
        Block::Text(text) => format!("<p>{}</p>\n", html(text)),
        Block::Points(points) => {
            let points: String = points.iter().map(|point| format!("<li>{}</li>", html(point))).collect();
            format!("<ul>{points}</ul>\n")
        }
        Block::Terms(terms) => {
            let term = |(term, meaning): &(String, String)| {
                format!("<div><dt>{}</dt><dd>{}</dd></div>", html(term), html(meaning))
            };
            format!("<dl>{}</dl>\n", terms.iter().map(term).collect::<String>())
        }
        Block::Table(caption, rows) => table(caption, rows),
        Block::Plots(_, _, panels) => panels.iter().map(|panel| panel.inline() + "\n").collect(),
    }
}

/// A table that scrolls where it is too wide, and whose columns the page's script can sort.
fn table(caption: &str, table: &Table) -> String {
    let class = |column: usize| if table.is_numeric(column) { " class=\"number\"" } else { "" };
    let head = |(column, title): (usize, &String)| {
        let (class, title) = (class(column), html(title));
        format!("<th scope=\"col\" aria-sort=\"none\"{class}><button type=\"button\">{title}</button></th>")
    };
    let heading: String = table.heading().iter().enumerate().map(head).collect();
    let mut rows = String::new();
    for row in table.rows() {
        rows.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let cell = html(cell);
            rows.push_str(&match column {
                0 => format!("<th scope=\"row\">{cell}</th>"),
                _ => format!("<td{}>{cell}</td>", class(column)),
            });
        }
        rows.push_str("</tr>\n");
    }
    let caption = html(caption);
    format!(
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\">\n<table class=\"sortable\">\n\
         <caption><span>{caption}</span></caption>\n<thead><tr>{heading}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )
}

/// The clips as the script reads them: captions and scores by variant and seed, or why there are none. A
/// metric without a value is null.
fn clips(study: &Study) -> Value {
    let Some(clips) = &study.clips else { return Value::Null };
    let media = media::of_clips(&study.folder, clips);
    let seeds = study.variants.first().map_or(0, |variant| variant.runs.len());
    let clips: Vec<Value> = clips
        .iter()
        .zip(media)
        .enumerate()
        .map(|(at, (clip, media))| {
            let caption = |run: &RunState| match run.captions() {
                Ok(scored) => {
                    let all = study.measures.iter().zip(&scored.of_clips[at]);
                    let own = all.filter(|(measure, _)| measure.is_shown_for_clips());
                    let scores: Vec<Option<f64>> = own.map(|(_, &score)| finite(score)).collect();
                    json!({ "text": scored.captions[at], "scores": scores })
                }
                Err(absence) => json!({ "absent": absence }),
            };
            let captions: Vec<Vec<Value>> =
                study.variants.iter().map(|variant| variant.runs.iter().map(caption).collect()).collect();
            json!({
                "id": clip.id,
                "media": media,
                "content": clip.content(),
                "question": clip.question,
                "references": clip.references,
                "captions": captions,
            })
        })
        .collect();
    let format = |measure: &Measure| {
        let NumberFormat { scale, digits } = NumberFormat::of(measure.name());
        json!({ "name": measure.name(), "scale": scale, "digits": if scale == 1.0 { 0 } else { digits } })
    };
    json!({
        "variants": study.variants.iter().map(|variant| &variant.name).collect::<Vec<_>>(),
        "seeds": seeds,
        "measures": study.measures.iter().filter(|measure| measure.is_shown_for_clips()).map(format).collect::<Vec<_>>(),
        "clips": clips,
    })
}

/// Four digits after the point are enough for sorting, and make the page smaller.
fn finite(score: f64) -> Option<f64> {
    score.is_finite().then(|| (score * 1e4).round() / 1e4)
}
