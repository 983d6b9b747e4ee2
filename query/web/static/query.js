// The query: its picture with a region to draw, further examples with their weights, and how to search.

import { get, isUpload, smallOf, upload, previewOf } from "./api.js";
import { bytesText, h, notice } from "./dom.js";
import { filterBar } from "./filters.js";
import { go, state } from "./nav.js";
import { asked, format } from "./state.js";

export function queryPanel() {
  const picture = h("img", { src: previewOf(state.q), alt: "The query" });
  const frame = h("div.query-picture", {}, picture);
  picture.addEventListener("load", () => {
    frame.style.setProperty("--ratio", picture.naturalWidth / picture.naturalHeight);
  });
  const about = h("div.about", {});
  if (isUpload(state.q)) about.append(h("p.name", {}, "Your picture"), h("p.quiet-text", {}, "Only in the memory of this page; it is not in the index."));
  else describe(about, picture);
  const region = regionTools(frame, picture);
  const element = h(
    "aside.query",
    { "aria-label": "The query" },
    frame,
    about,
    region,
    examples(),
    h(
      "div.row",
      {},
      h("a.button", { href: format({ ...state, view: "compare", box: null }), "data-link": true }, "Compare spaces"),
      h("label.check", {}, h("input", { type: "checkbox", checked: state.fold, onchange: (event) => go({ ...state, fold: event.target.checked }) }), "Group near copies"),
    ),
    filterBar(),
  );
  return { element };
}

async function describe(about, picture) {
  try {
    const found = await get(`/api/pictures/${state.q}`);
    picture.alt = `The query: ${found.name}`;
    about.append(
      h("p.name", { title: found.name }, found.name),
      h("p.folder", { title: found.folder }, found.folder),
      h("p.quiet-text", {}, `${found.width} × ${found.height} · ${found.format} · ${bytesText(found.bytes)}${found.offline ? " · offline" : ""}`),
      found.date ? h("p.quiet-text", {}, `${found.date.slice(0, 16).replace("T", " ")} (${found.date_of === "picture" ? "the picture’s own date" : "date of the file"})`) : "",
      ...(found.metadata ? said(found.metadata) : []),
      found.paths.length > 1 ? h("details", {}, h("summary", {}, `${found.paths.length} files`), h("ul.paths", {}, found.paths.map((file) => h("li", {}, file.path)))) : "",
    );
  } catch (error) {
    about.append(h("p.notice.problem", {}, error.message));
  }
}

/** What the file says of the picture. */
function said({ camera, lens, rating, latitude, longitude, keywords, caption }) {
  const stars = rating === null ? "" : rating < 0 ? "rejected" : "★".repeat(rating);
  const place = latitude === null ? "" : `${latitude.toFixed(4)}, ${longitude.toFixed(4)}`;
  const lines = [caption, [camera, lens].filter(Boolean).join(" · "), [stars, place].filter(Boolean).join(" · "), keywords.join(", ")];
  return lines.filter(Boolean).map((line) => h("p.quiet-text.said", {}, line));
}

// Region

function regionTools(frame, picture) {
  const box = h("div.region-box", { hidden: true });
  frame.append(box);
  let drawing = false;
  const place = (given) => {
    box.hidden = !given;
    if (!given) return;
    const [x, y, width, height] = given;
    box.style.left = `${100 * x}%`;
    box.style.top = `${100 * y}%`;
    box.style.width = `${100 * width}%`;
    box.style.height = `${100 * height}%`;
  };
  place(state.box);

  const start = h("button", { type: "button", "aria-pressed": "false", onclick: () => arm(!drawing) }, state.box ? "Draw another region" : "Search by a region");
  const arm = (on) => {
    drawing = on;
    start.setAttribute("aria-pressed", on);
    frame.classList.toggle("drawing", on);
  };
  let from = null;
  const at = (event) => {
    const area = picture.getBoundingClientRect();
    const clamp = (value) => Math.min(1, Math.max(0, value));
    return [clamp((event.clientX - area.left) / area.width), clamp((event.clientY - area.top) / area.height)];
  };
  const between = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1])];
  frame.addEventListener("pointerdown", (event) => {
    if (event.button || (!drawing && event.pointerType !== "mouse")) return; // a finger scrolls, unless drawing is on
    event.preventDefault();
    from = at(event);
    frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => {
    if (from) place(between(from, at(event)));
  });
  frame.addEventListener("pointerup", (event) => {
    if (!from) return;
    const drawn = between(from, at(event));
    from = null;
    if (drawn[2] > 0.02 && drawn[3] > 0.02) go({ ...state, box: drawn }, { keepScroll: true });
    else place(state.box);
  });
  frame.addEventListener("pointercancel", () => {
    from = null;
    place(state.box);
  });

  const parts = [h("div.row", {}, start, state.box && h("button", { type: "button", onclick: () => go({ ...state, box: null }) }, "Whole picture"))];
  if (state.box)
    parts.push(
      h(
        "p.reading",
        {},
        "The part in the box, as the network sees it within the whole picture, is compared with every part of the others. ",
        h("button.text", { type: "button", onclick: () => cutOut(picture) }, "Search with the cut-out alone instead"),
      ),
    );
  parts.push(h("details.numbers", {}, h("summary", {}, "Region by numbers"), numbers()));
  return h("div.region", {}, parts);
}

/** The same by keyboard. */
function numbers() {
  const given = state.box ?? [0.25, 0.25, 0.5, 0.5];
  const names = ["left", "top", "width", "height"];
  const inputs = names.map((name, number) => h("input", { type: "number", min: "0", max: "100", step: "any", value: String(Math.round(1000 * given[number]) / 10), "aria-label": `${name}, percent` }));
  const onsubmit = (event) => {
    event.preventDefault();
    const [x, y, width, height] = inputs.map((input) => Math.min(1, Math.max(0, Number(input.value) / 100)));
    go({ ...state, box: [x, y, Math.min(width, 1 - x), Math.min(height, 1 - y)] });
  };
  return h("form.four", { onsubmit }, names.map((name, number) => h("label", {}, `${name} %`, inputs[number])), h("button", {}, "Search"));
}

/** The other reading: the pixels in the box as a separate picture. */
async function cutOut(picture) {
  try {
    await picture.decode();
    const [x, y, width, height] = state.box;
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(width * picture.naturalWidth));
    canvas.height = Math.max(1, Math.round(height * picture.naturalHeight));
    canvas.getContext("2d").drawImage(picture, -Math.round(x * picture.naturalWidth), -Math.round(y * picture.naturalHeight));
    const made = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    const found = await upload(made);
    go(asked(state, found.picture));
  } catch (error) {
    notice(error.message, "problem");
  }
}

// Examples

function examples() {
  if (!state.also.length) return null;
  const change = (picture, weight) => {
    const also = state.also.map((example) => (example.picture === picture ? { ...example, weight } : example));
    go({ ...state, also: also.filter((example) => example.weight !== 0) }, { keepScroll: true });
  };
  const row = (example) =>
    h(
      "li",
      {},
      h("img", { src: smallOf(example.picture), alt: "", width: "48", height: "48" }),
      h("span.sign", {}, example.weight > 0 ? "more like this" : "less like this"),
      h("input", { type: "number", step: "0.25", min: "-10", max: "10", value: String(example.weight), "aria-label": "weight", onchange: (event) => change(example.picture, Number(event.target.value)) }),
      h("button.icon", { type: "button", "aria-label": "Remove this example", onclick: () => change(example.picture, 0) }, "×"),
    );
  return h("section.examples", {}, h("h2", {}, "And"), h("ul", {}, state.also.map(row)), h("p.quiet-text", {}, "The query has weight 1. Scores are sums in units of each example's spread by chance."));
}
