// What stands above every list of pictures: a field for file names, the order, the size of the tiles, and the filters that
// are on.

import { debounce, h, bytesText } from "./dom.js";
import { go, state } from "./nav.js";
import { emptyFilters, filtersOn } from "./state.js";

const KEY = "diffsim-tile";
const [SMALLEST, USUAL, LARGEST] = [110, 176, 420];
const ORDERS = { newest: "newest first", oldest: "oldest first", largest: "largest file first", smallest: "smallest file first" };
let typing = null; // the caret of a field that is drawn anew while somebody types into it

/** The least width of a tile, as it was chosen last. */
export function tileSide() {
  try {
    return Math.min(LARGEST, Math.max(SMALLEST, Number(localStorage.getItem(KEY)) || USUAL));
  } catch {
    return USUAL;
  }
}

/** usual: what the list is ordered by by itself; more: further orders; onSize(side). */
export function listTools({ usual, more = {}, onSize }) {
  const name = h("input", { type: "search", id: "file-name", placeholder: "Find by file name", "aria-label": "Find by file name", value: state.filters.name ?? "", maxlength: "200", autocomplete: "off", spellcheck: "false" });
  const find = () => {
    typing = document.activeElement === name ? name.selectionStart : null;
    const filters = { ...state.filters, name: name.value.trim() };
    if (!filters.name) delete filters.name;
    if ((filters.name ?? "") !== (state.filters.name ?? "")) go({ ...state, filters }, { replace: Boolean(filters.name && state.filters.name) });
  };
  name.addEventListener("change", find);
  if (state.q === null) name.addEventListener("input", debounce(350, () => name.isConnected && find()));
  const order = h(
    "select",
    { id: "order", "aria-label": "Order", onchange: () => go({ ...state, sort: order.value || null }, { replace: true }) },
    Object.entries({ "": usual, ...more, ...ORDERS }).map(([value, text]) => h("option", { value, selected: (state.sort ?? "") === value }, text)),
  );
  const size = h("input", { type: "range", id: "tile-size", min: String(SMALLEST), max: String(LARGEST), value: String(tileSide()), "aria-label": "Size of the tiles" });
  size.addEventListener("input", () => {
    onSize(Number(size.value));
    try {
      localStorage.setItem(KEY, size.value);
    } catch {
      // no storage: it lasts until the view is left
    }
  });
  if (typing !== null) {
    const caret = typing;
    queueMicrotask(() => {
      name.focus();
      name.setSelectionRange(caret, caret);
    });
    typing = null;
  }
  return h("div.list-tools", {}, name, h("label.order", {}, h("span.quiet-text", {}, "Order"), order), h("label.tile-size", {}, h("span.quiet-text", {}, "Size"), size));
}

/** The filters that are on, each to be taken off. */
export function chips() {
  const filters = state.filters;
  if (!filtersOn(filters)) return null;
  const set = (change) => {
    const next = { ...filters, ...change };
    for (const key of Object.keys(next)) if (next[key] === null) delete next[key];
    go({ ...state, filters: next });
  };
  const chip = (text, change, title) => h("button.chip", { type: "button", title, "aria-label": `Take off: ${text}`, onclick: () => set(change) }, h("span", {}, text), h("span", { "aria-hidden": "true" }, "×"));
  const without = (list, one) => list.filter((each) => each !== one);
  const single = {
    colours: ([colour]) => `has the colour ${colour}`,
    name: (value) => `name has “${value}”`,
    after: (value) => `from ${value}`,
    before: (value) => `before ${value}`,
    min_side: (value) => `sides ≥ ${value.toLocaleString("en")} px`,
    max_side: (value) => `sides ≤ ${value.toLocaleString("en")} px`,
    min_bytes: (value) => `≥ ${bytesText(value)}`,
    max_bytes: (value) => `≤ ${bytesText(value)}`,
  };
  const shown = [
    ...filters.folders.map((folder) => chip(`in ${folder.split("/").pop() || folder}`, { folders: without(filters.folders, folder) }, folder)),
    ...filters.formats.map((format) => chip(format, { formats: without(filters.formats, format) })),
    ...Object.keys(single).filter((key) => filters[key]).map((key) => chip(single[key](filters[key]), { [key]: null })),
  ];
  if (shown.length > 1) shown.push(h("button.text", { type: "button", onclick: () => go({ ...state, filters: emptyFilters() }) }, "No filters"));
  return h("div.chips", { role: "group", "aria-label": "Filters that are on" }, shown);
}
