"use strict";

// Tables sort by the column whose heading is pressed: numbers by value, cells without one last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const original = [...body.rows];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const states = ["none", "descending", "ascending"];
      const state = states[(states.indexOf(heading.getAttribute("aria-sort")) + 1) % 3];
      headings.forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", state);
      const value = (row) => {
        const text = row.cells[column].textContent.replace(/,/g, "").replace(/−/g, "-").replace(/^< /, "");
        const number = parseFloat(text);
        return Number.isNaN(number) ? text : number;
      };
      const compare = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
        const order = typeof x === "number" ? x - y : x.localeCompare(y);
        return state === "descending" ? -order : order;
      };
      body.append(...(state === "none" ? original : [...original].sort(compare)));
    });
  });
}

const data = JSON.parse(document.getElementById("data").textContent);
if (data) showClips(data);

function showClips({ variants, seeds, measures, clips }) {
  const PAGE = 24;
  const $ = (id) => document.getElementById(id);
  const [words, where, sort, variant, seed, direction, list, more] =
    ["words", "where", "sort", "variant", "seed", "direction", "list", "more"].map($);
  let shown = PAGE;
  let chosen = [];

  const make = (name, text, attributes = {}) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const fill = (select, options) =>
    select.append(...options.map(([value, text]) => make("option", text, { value })));

  fill(sort, [
    ["order", "place in the test split"],
    ["disagreement", `disagreement in ${measures[0].name}`],
    ...measures.map((measure, at) => [String(at), measure.name]),
  ]);
  fill(variant, [["all", "all variants (mean)"], ...variants.map((name, at) => [String(at), name])]);
  fill(seed, [...(seeds > 1 ? [["all", "all (mean)"]] : []), ...Array.from({ length: seeds }, (_, at) => [String(at), String(at + 1)])]);

  const mean = (values) => {
    const known = values.filter((value) => typeof value === "number");
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  };
  const written = (clip, at) => {
    const cells = clip.captions[at];
    return (seed.value === "all" ? cells : [cells[Number(seed.value)]]).filter((cell) => cell.absent === undefined);
  };
  const score = (clip, at, measure) => mean(written(clip, at).map((caption) => caption.scores[measure]));
  const disagreement = (clip) => {
    const scores = variants.map((_, at) => score(clip, at, 0)).filter((value) => value !== null);
    return scores.length > 1 ? Math.max(...scores) - Math.min(...scores) : null;
  };
  const keyOf = (clip) => {
    if (sort.value === "disagreement") return disagreement(clip);
    const measure = Number(sort.value);
    if (variant.value !== "all") return score(clip, Number(variant.value), measure);
    return mean(variants.map((_, at) => score(clip, at, measure)));
  };

  const wanted = () => words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const wordsOf = (text) => text.toLowerCase().split(/[^\p{L}\p{N}']+/u);
  const isWanted = (clip, all) => {
    const captions = variants.flatMap((_, at) => written(clip, at).map((caption) => caption.text));
    const texts = where.value === "captions" ? captions
      : where.value === "references" ? clip.references
      : [...captions, ...clip.references, clip.id];
    const there = texts.flatMap(wordsOf);
    return all.every((word) => there.some((other) => other.startsWith(word)) || (where.value === "both" && clip.id.toLowerCase() === word));
  };

  // Found words are marked; the text is never read as HTML.
  const marked = (name, text, all) => {
    const element = make(name);
    for (const part of text.split(/([\p{L}\p{N}']+)/u)) {
      const isFound = all.some((word) => part.toLowerCase().startsWith(word));
      element.append(isFound ? make("mark", part) : part);
    }
    return element;
  };

  const format = (value, { scale, digits }) => (value === null ? "–" : (value * scale).toFixed(digits));
  const media = ({ id, media }) => {
    const box = make("div");
    const fail = (why) => box.replaceChildren(make("p", why, { class: "missing" }));
    if (media.missing) {
      fail(media.missing);
    } else if (media.image) {
      const image = make("img", undefined, { src: media.image, alt: `clip ${id}`, loading: "lazy" });
      image.addEventListener("error", () => fail("this browser cannot show the file"));
      box.append(image);
    } else {
      const video = make("video", undefined, { controls: "", loop: "", playsinline: "", preload: "metadata", "aria-label": `clip ${id}` });
      video.muted = true;
      video.addEventListener("error", () => fail("this browser cannot play the file"));
      video.src = media.video;
      box.append(video);
    }
    return box;
  };

  const captionsOf = (clip, all) => {
    const table = make("table");
    table.append(make("caption", "captions and their scores on this clip"));
    const head = table.createTHead().insertRow();
    const titles = ["variant", "caption", ...measures.map((measure) => measure.name)];
    head.append(...titles.map((title, at) => make("th", title, { scope: "col", class: at > 1 ? "number" : "" })));
    const body = table.createTBody();
    variants.forEach((name, at) => {
      clip.captions[at].forEach((caption, number) => {
        if (seed.value !== "all" && number !== Number(seed.value)) return;
        const row = body.insertRow();
        row.append(make("th", seeds > 1 ? `${name}, seed ${number + 1}` : name, { scope: "row" }));
        if (caption.absent !== undefined) {
          row.append(make("td", caption.absent, { colspan: String(measures.length + 1), class: "soft" }));
          return;
        }
        row.append(marked("td", caption.text || "(no word)", where.value === "references" ? [] : all));
        row.append(...caption.scores.map((value, measure) => make("td", format(value, measures[measure]), { class: "number" })));
      });
    });
    const scroll = make("div", undefined, { class: "scroll", role: "region", tabindex: "0", "aria-label": `captions of ${clip.id}` });
    scroll.append(table);
    return scroll;
  };

  const show = (clip, all) => {
    const item = make("li", undefined, { class: "clip" });
    const text = make("div");
    if (clip.question) text.append(make("p", `Question: ${clip.question}`));
    text.append(captionsOf(clip, all));
    if (clip.content) text.append(make("p", `What happens: ${clip.content}.`, { class: "soft" }));
    const details = make("details");
    details.open = clip.references.length <= 5;
    const references = make("ul");
    references.append(...clip.references.map((reference) => marked("li", reference, where.value === "captions" ? [] : all)));
    details.append(make("summary", clip.question ? "Answers" : `${clip.references.length} references`), references);
    text.append(details);
    item.append(make("h3", clip.id), media(clip), text);
    return item;
  };

  const render = () => {
    const all = wanted();
    list.replaceChildren(...chosen.slice(0, shown).map((clip) => show(clip, all)));
    $("count").textContent = `${chosen.length} of ${clips.length} clips${chosen.length > shown ? `, ${shown} shown` : ""}`;
    more.hidden = chosen.length <= shown;
  };
  const update = () => {
    shown = PAGE;
    variant.disabled = sort.value === "order" || sort.value === "disagreement";
    direction.disabled = sort.value === "order";
    const all = wanted();
    const sign = direction.getAttribute("aria-pressed") === "true" ? 1 : -1;
    chosen = clips.filter((clip) => isWanted(clip, all));
    if (sort.value !== "order") {
      const keyed = chosen.map((clip) => [keyOf(clip), clip]);
      // clips without a score come last, whichever way is sorted
      keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * (a - b)));
      chosen = keyed.map(([, clip]) => clip);
    }
    render();
  };

  direction.addEventListener("click", () => {
    const isLowest = direction.getAttribute("aria-pressed") !== "true";
    direction.setAttribute("aria-pressed", String(isLowest));
    direction.textContent = isLowest ? "lowest first" : "highest first";
    update();
  });
  more.addEventListener("click", () => {
    const first = shown;
    shown += PAGE;
    render();
    list.children[first]?.querySelector("video, img, .scroll")?.focus();
  });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  words.addEventListener("input", update);
  for (const select of [where, sort, variant, seed]) select.addEventListener("change", update);
  update();
}
