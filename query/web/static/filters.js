// Which pictures may be hits: by folder, date, size, format and colour; applied before recall.

import { h } from "./dom.js";
import { folderTree } from "./folders.js";
import { go, index, state } from "./nav.js";
import { emptyFilters, filtersOn } from "./state.js";

const FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "HEIF", "AVIF", "BMP", "JPEG2000"];
const PALETTE = ["#c0392b", "#e67e22", "#f1c40f", "#27ae60", "#16a2b8", "#2c5bd4", "#7d3cb5", "#e79ac0", "#7a4a24", "#ffffff", "#8a8a8a", "#000000"];
const MB = 2 ** 20;

/** A line of filters for the top of a view; a disclosure, open if some are set. */
export function filterBar() {
  const on = filtersOn(state.filters);
  const body = h("div.filter-body", {});
  const details = h(
    "details.filters",
    { id: "filters", open: on > 0 },
    h("summary", {}, "Filters", on ? h("span.pill", {}, `${on} on`) : null),
    body,
  );
  const fill = () => {
    if (!body.childElementCount) body.append(...form());
  };
  details.addEventListener("toggle", fill);
  if (on) fill();
  return details;
}

function set(change) {
  const filters = { ...state.filters, ...change };
  for (const name of Object.keys(filters)) if (filters[name] === null || filters[name] === "") delete filters[name];
  go({ ...state, filters }, { keepScroll: true });
}

function field(label, control) {
  return h("label.field", {}, h("span", {}, label), control);
}

function number(name, label, scale, unit) {
  const value = state.filters[name] ? state.filters[name] / scale : "";
  const onchange = (event) => {
    const given = Number(event.target.value);
    set({ [name]: given > 0 ? Math.max(1, Math.round(given * scale)) : null });
  };
  return field(`${label} (${unit})`, h("input", { type: "number", min: "0", step: "any", inputmode: "decimal", value: String(value), onchange }));
}

/** A palette, and any other colour; where the index knows colours. */
function colours() {
  if (!index.spaces.some((space) => space.name === "colour/colour")) return null;
  const [on] = state.filters.colours ?? [];
  const choose = (colour) => set({ colours: colour === on ? null : [colour] });
  const swatch = (colour) => {
    const made = h("button.swatch", { type: "button", title: colour, "aria-label": `Has the colour ${colour}`, "aria-pressed": String(colour === on), onclick: () => choose(colour) });
    made.style.backgroundColor = colour; // an attribute would be against the page's policy
    return made;
  };
  const other = h("input", { type: "color", value: on ?? "#c0392b", "aria-label": "Another colour", title: "Another colour", onchange: (event) => choose(event.target.value) });
  return h("div.field.colours", { role: "group", "aria-label": "Colour" }, h("span", {}, "Has the colour"), h("div.palette", {}, PALETTE.map(swatch), other));
}

function form() {
  const format = h(
    "select",
    { onchange: (event) => set({ formats: event.target.value ? [event.target.value] : [] }) },
    h("option", { value: "" }, "any"),
    FORMATS.map((name) => h("option", { value: name, selected: state.filters.formats[0] === name }, name)),
  );
  const day = (name, label) => field(label, h("input", { type: "date", value: state.filters[name] ?? "", onchange: (event) => set({ [name]: event.target.value || null }) }));
  return [
    h("div.field.folders", {}, h("span", {}, "Folders"), folderTree(state.filters.folders, (folders) => set({ folders }))),
    day("after", "Dated from"),
    day("before", "Dated before"),
    number("min_side", "Sides at least", 1, "px"),
    number("min_bytes", "File at least", MB, "MB"),
    number("max_bytes", "File at most", MB, "MB"),
    field("Format", format),
    colours(),
    h("button", { type: "button", disabled: !filtersOn(state.filters), onclick: () => go({ ...state, filters: emptyFilters() }) }, "No filters"),
  ];
}
