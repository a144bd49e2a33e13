//! The report of a study: what it says of a half-finished grid, what it refuses, and the page in a browser.

#![allow(clippy::unwrap_used)] // what fails in a helper fails the test

mod browser;
mod study;

use browser::Browser;
use serde_json::{Value, json};
use study::{CLIPS, Study};
use tests::{Desk, Ran};

fn report(study: &Study) -> Ran {
    Desk::new().run(&["report", study.folder().to_str().unwrap()])
}

fn reported() -> Study {
    let study = Study::new();
    let ran = report(&study);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    study
}

fn refused(study: &Study, words: &[&str]) {
    let ran = report(study);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(!study.folder().join("report.html").exists(), "a report was written all the same");
    for word in words {
        assert!(ran.err.contains(word), "should say {word:?}: {}", ran.err);
    }
}

#[test]
fn a_half_finished_grid_says_not_run_where_nothing_ran() {
    let study = reported();
    let text = study.read("report.md");
    let line = |start: &str| {
        let found = text.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no line {start:?}: {text}")).to_owned()
    };
    // results, then the grid of cells
    assert!(line("| third").matches("not run").count() >= 4, "{}", line("| third"));
    let cells: Vec<&str> = text.lines().filter(|line| line.starts_with("| fancy_fusion ")).collect();
    assert!(cells.iter().any(|line| line.contains("finished") && line.contains("not run")), "{cells:?}");
    assert!(line("| plain − third").contains("not run"), "{text}");
    // two seeds of the one, one of the other: compared over the seed they share
    assert!(line("| plain − fancy_fusion").trim_end_matches(['|', ' ']).ends_with('1'), "{text}");
    assert!(line("| Fig. 3a").contains("73.6") && line("| Fig. 3a").contains("paper, MSR-VTT, FLAN-T5-XL"));
    for plot in ["bars.svg", "loss.svg", "cider.svg", "curves.svg"] {
        assert!(text.contains(plot) && study.read(plot).contains("</svg>"), "{plot}");
    }
    study.write_text("third/seed-1/metrics.jsonl", "{}\n{}\n");
    report(&study);
    assert!(study.read("report.md").contains("not finished (2 epochs)"));
}

#[test]
fn the_same_folder_gives_the_same_report_and_nothing_else_in_it_is_touched() {
    let study = reported();
    let (html, markdown) = (study.read("report.html"), study.read("report.md"));
    let summary = study.read("summary.json");
    assert_eq!(report(&study).code, Some(0));
    assert_eq!(
        (html, markdown, summary),
        (study.read("report.html"), study.read("report.md"), study.read("summary.json"))
    );
}

#[test]
fn captions_are_never_markup() {
    let study = reported();
    let (html, markdown) = (study.read("report.html"), study.read("report.md"));
    assert!(!html.contains("<script>window") && html.contains("\\u003cscript>window.hacked"));
    assert!(!markdown.contains("<script>"), "{markdown}");
}

#[test]
fn what_is_missing_is_named() {
    let study = Study::new();
    std::fs::remove_file(study.folder().join("plain/seed-2/predictions/test.json")).unwrap();
    std::fs::remove_file(study.folder().join("plain/seed-1/timing.json")).unwrap();
    std::fs::remove_file(study.folder().join("../../clips/video8.webm")).unwrap();
    let ran = report(&study);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for gap in ["plain/seed-2 lacks predictions/test.json", "plain/seed-1 lacks timing.json"] {
        assert!(ran.out.contains(gap) && study.read("report.md").contains(gap), "{gap}: {}", ran.out);
    }
    assert!(study.read("report.html").contains("video8.webm"), "the missing video is named");

    std::fs::remove_file(study.folder().join("clips.json")).unwrap();
    let ran = report(&study);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("clips.json is missing"), "{}", ran.out);
    assert!(study.read("report.md").contains("Without the test clips nothing can be compared"));
}

#[test]
fn what_disagrees_is_refused_with_the_files_name() {
    let path = "plain/seed-1/predictions/test.json";
    let changed = |change: &dyn Fn(&mut Value)| {
        let study = Study::new();
        let mut rows = study.json(path);
        change(&mut rows);
        study.write(path, &rows);
        study
    };
    refused(
        &changed(&|rows| rows[0]["caption"] = json!("something else")),
        &["seed-1/predictions/test.json", "CIDEr"],
    );
    refused(
        &changed(&|rows| rows[0]["image_id"] = json!("video77")),
        &["seed-1/predictions/test.json", "video77", "clips.json"],
    );
    refused(
        &changed(&|rows| drop(rows.as_array_mut().unwrap().pop())),
        &["seed-1/predictions/test.json", "video9"],
    );
    refused(&changed(&|rows| *rows = json!({ "a": 1 })), &["seed-1/predictions/test.json"]);

    let study = Study::new();
    let mut result = study.json("plain/seed-1/result.json");
    result["test"]["CIDEr"] = json!(9.9);
    study.write("plain/seed-1/result.json", &result);
    refused(&study, &["plain/seed-1/result.json", "summary.json"]);

    for (change, words) in [
        (json!({ "name": "../elsewhere" }), "name of a folder"),
        (json!({ "name": "fancy_fusion" }), "twice"),
    ] {
        let study = Study::new();
        let mut summary = study.json("summary.json");
        summary["variants"][0]["name"] = change["name"].clone();
        study.write("summary.json", &summary);
        refused(&study, &["summary.json", words]);
    }
}

#[test]
fn damage_is_refused_with_the_files_name() {
    for file in [
        "summary.json",
        "clips.json",
        "plain/seed-1/result.json",
        "plain/seed-1/timing.json",
        "plain/seed-1/config.toml",
    ] {
        let study = Study::new();
        let text = study.read(file);
        study.write_text(file, &text[..text.len() - 3]);
        refused(&study, &[file, "damaged"]);
    }
    let ran = Desk::new().run(&["report", "no/such/folder"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("no summary.json in no/such/folder"), "{}", ran.err);
}

/// A report in a browser; none, and why, where there is no browser.
fn opened() -> Option<(Study, Browser)> {
    let Some(mut browser) = Browser::start() else {
        eprintln!("skipped: no Chromium");
        return None;
    };
    let study = reported();
    browser.open(&study.folder().join("report.html"));
    Some((study, browser))
}

#[test]
fn the_page_opens_without_a_complaint_and_its_plots_are_drawn() {
    let Some((_study, mut browser)) = opened() else { return };
    let drawn = browser.evaluate(
        "[...document.querySelectorAll('figure svg')].map(svg => { \
           const mark = svg.querySelector('polyline, rect, circle')?.getBBox(); \
           return [svg.getBoundingClientRect().width > 100, mark ? mark.width > 0 : false]; })",
    );
    let drawn = drawn.as_array().unwrap();
    assert!(drawn.len() >= 6, "bars, the paper's bars, curves: {drawn:?}");
    assert!(drawn.iter().all(|svg| *svg == json!([true, true])), "{drawn:?}");
    let paper =
        browser.evaluate("document.querySelector('svg .paper').closest('svg').getAttribute('aria-label')");
    assert!(paper.as_str().unwrap().contains("paper, MSR-VTT, FLAN-T5-XL"), "{paper}");
    assert_eq!(browser.evaluate("typeof window.hacked"), "undefined");
    let shown = browser.evaluate("document.querySelector('#list').textContent");
    assert!(shown.as_str().unwrap().contains("<script>window.hacked = 2</script>"), "{shown}");
    assert_eq!(browser.complaints(), [""; 0]);
    let elsewhere: Vec<String> = browser
        .requests()
        .into_iter()
        .filter(|url| !url.starts_with("file:") && !url.starts_with("data:") && !url.starts_with("blob:"))
        .collect();
    assert_eq!(elsewhere, [""; 0]);
}

#[test]
fn a_clip_plays_from_the_page_and_from_a_file_beside_it() {
    let Some((study, mut browser)) = opened() else { return };
    const PLAY: &str = "(async () => { \
        const video = document.querySelector('#list video'); \
        await video.play(); \
        for (let wait = 0; wait < 200 && video.currentTime < 0.2; wait++) await new Promise(done => setTimeout(done, 50)); \
        return [video.currentTime >= 0.2, video.videoWidth, video.src.slice(0, 5)]; })()";
    assert_eq!(browser.evaluate(PLAY), json!([true, 64, "data:"]));

    // a large clip makes all of them stay files
    let large = study.folder().join("../../clips/video9.webm");
    let mut bytes = std::fs::read(&large).unwrap();
    bytes.resize(16 << 20, 0);
    std::fs::write(&large, bytes).unwrap();
    assert_eq!(report(&study).code, Some(0));
    browser.open(&study.folder().join("report.html"));
    assert_eq!(browser.evaluate(PLAY), json!([true, 64, "file:"]));
}

/// The clips in the order of the page.
const ORDER: &str = "[...document.querySelectorAll('#list h3')].map(title => title.textContent)";

fn choose(browser: &mut Browser, id: &str, value: &str) {
    let script = format!(
        "{{ const control = document.getElementById('{id}'); control.value = '{value}'; \
         control.dispatchEvent(new Event(control.tagName === 'INPUT' ? 'input' : 'change', {{ bubbles: true }})); control.value }}"
    );
    assert_eq!(browser.evaluate(&script), value, "there is no choice {value:?} of {id}");
}

#[test]
fn clips_are_sorted_and_filtered() {
    let Some((_study, mut browser)) = opened() else { return };
    assert_eq!(browser.evaluate(ORDER), json!(CLIPS.map(|(id, _)| id)));

    // CIDEr of fancy_fusion: right about video8, one word of video7
    choose(&mut browser, "sort", "0");
    choose(&mut browser, "variant", "1");
    choose(&mut browser, "seed", "0");
    let order = browser.evaluate(ORDER);
    assert_eq!(order[0], "video8", "{order}");
    browser.evaluate("document.getElementById('direction').click()");
    let lowest = browser.evaluate(ORDER);
    assert_eq!(lowest[2], "video8", "{lowest}");
    browser.evaluate("document.getElementById('direction').click()");

    // plain, seed 1: says of video8 what has nothing to do with it
    choose(&mut browser, "variant", "0");
    assert_eq!(browser.evaluate(ORDER)[2], "video8");

    // the variants agree most about video9's onion
    choose(&mut browser, "sort", "disagreement");
    assert_eq!(browser.evaluate(ORDER)[2], "video9");

    choose(&mut browser, "words", "dog");
    assert_eq!(browser.evaluate(ORDER), json!(["video8"]));
    assert_eq!(browser.evaluate("document.getElementById('count').textContent"), "1 of 3 clips");
    assert_eq!(browser.evaluate("document.querySelector('mark').textContent"), "dog");
    choose(&mut browser, "words", "sleeps");
    choose(&mut browser, "where", "references");
    assert_eq!(browser.evaluate(ORDER), json!([]));
    choose(&mut browser, "where", "captions");
    assert_eq!(browser.evaluate(ORDER), json!(["video8"]));
    // parts of words are not words, but their beginnings are found while one types
    choose(&mut browser, "words", "leeps");
    assert_eq!(browser.evaluate(ORDER), json!([]));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn everything_is_reached_and_worked_with_the_keyboard() {
    let Some((_study, mut browser)) = opened() else { return };
    let mut reached = Vec::new();
    for _ in 0..120 {
        browser.press("Tab");
        let place = browser.evaluate(
            "{ const e = document.activeElement; const s = getComputedStyle(e); \
             [e.id || e.className || e.closest('th, summary, nav, .clip')?.className || e.tagName, e.tagName, s.outlineStyle !== 'none'] }",
        );
        if place[1] == "BODY" {
            break;
        }
        // a video shows the focus on its own controls
        assert!(place[2] == true || place[1] == "VIDEO", "no focus is seen on {place}");
        reached.push(place[0].as_str().unwrap().to_owned());
    }
    for id in ["skip", "scroll", "words", "where", "sort", "seed"] {
        assert!(reached.iter().any(|place| place == id), "{id}: {reached:?}");
    }
    let tags = browser.evaluate(
        "[...document.querySelectorAll('#list video')].every(video => video.tabIndex >= 0 && video.controls)",
    );
    assert_eq!(tags, true);

    // a column is sorted by its heading's button, and says so
    browser.evaluate("document.querySelector('#results th:last-child button').focus()");
    browser.press("Enter");
    assert_eq!(
        browser.evaluate("document.querySelector('#results th:last-child').getAttribute('aria-sort')"),
        "descending"
    );
    let last = browser.evaluate("document.querySelector('#results tbody tr:last-child th').textContent");
    assert_ne!(last, "plain", "rows without a number come last");

    browser.evaluate("document.getElementById('words').focus()");
    browser.insert("onion");
    assert_eq!(browser.evaluate(ORDER), json!(["video9"]));
    // Enter in the form does not leave the page
    browser.press("Enter");
    assert_eq!(browser.evaluate(ORDER), json!(["video9"]));
}

#[test]
fn a_narrow_screen_does_not_scroll_sideways_and_dark_is_dark() {
    let Some((_study, mut browser)) = opened() else { return };
    const LIGHTNESS: &str = "parseInt(getComputedStyle(document.body).backgroundColor.slice(4))";
    assert!(browser.evaluate(LIGHTNESS).as_u64().unwrap() > 200);
    let narrow = json!({ "width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": true });
    browser.call("Emulation.setDeviceMetricsOverride", &narrow);
    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    browser.call("Emulation.setEmulatedMedia", &dark);
    assert!(browser.evaluate(LIGHTNESS).as_u64().unwrap() < 60);
    let widths = browser.evaluate("[document.documentElement.scrollWidth, window.innerWidth]");
    assert_eq!(widths, json!([360, 360]));
}
