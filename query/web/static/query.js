// The query: its picture with a region to draw, further examples with their weights, and how to search.

import { get, isUpload, previewOf, smallOf } from "./api.js";
import { bytesText, h, notice } from "./dom.js";
import { filterBar } from "./filters.js";
import { lightbox } from "./lightbox.js";
import { go, state } from "./nav.js";
import { regionTools } from "./region.js";
import { format } from "./state.js";

export function queryPanel() {
  if (state.q === null) return { element: h("aside.query", { "aria-label": "The query" }, h("p.words", {}, `“${state.words}”`), filterBar()) };
  const picture = h("img", { src: previewOf(state.q), alt: "The query" });
  const frame = h("div.query-picture", {}, picture);
  picture.addEventListener("load", () => {
    frame.style.setProperty("--ratio", picture.naturalWidth / picture.naturalHeight);
  });
  const shown = h("button.tool.open", { type: "button", title: "Open it large", "aria-label": "Open the query large" });
  shown.addEventListener("click", () => enlarge(picture));
  frame.append(shown);
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
    state.words && h("p.words", {}, `and “${state.words}”`),
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

async function enlarge(picture) {
  const own = { id: state.q, name: "Your picture", version: "", width: picture.naturalWidth, height: picture.naturalHeight };
  try {
    const item = isUpload(state.q) ? own : await get(`/api/pictures/${state.q}`);
    lightbox({ count: () => 1, item: () => item }, 0);
  } catch (error) {
    notice(error.message, "problem");
  }
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
