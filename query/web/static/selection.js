// The selected pictures: to copy as paths, CSV or JSON, or to download as a ZIP or a sheet.

import { blob, get } from "./api.js";
import { $, copyText, h, notice, plural, say } from "./dom.js";
import { state } from "./nav.js";
import { searchBody } from "./state.js";

const MOST = 5000; // as the API takes them
const chosen = new Map(); // id -> item, in the order of selection

export const has = (id) => chosen.has(id);

export function toggle(item) {
  if (!chosen.delete(item.id)) chosen.set(item.id, item);
  show();
  say(`${plural(chosen.size, "picture")} selected.`);
}

let anchor = null; // the number of the tile that was chosen last
let between = null; // items(from, to) of the list that is shown, which may be a promise

/** The list of which ranges may be chosen. */
export function among(items) {
  anchor = null;
  between = items;
}

/** One tile, or with Shift all from the one that was chosen last. */
export async function pick(item, number, range) {
  const from = anchor;
  anchor = number;
  if (!range || from === null || from === number) return toggle(item);
  try {
    const items = await between(Math.min(from, number), Math.min(Math.max(from, number), Math.min(from, number) + MOST - 1));
    addAll(items.filter(Boolean));
    say(`${plural(chosen.size, "picture")} selected.`);
  } catch (error) {
    notice(error.message, "problem");
  }
}

export function addAll(items) {
  for (const item of items) chosen.set(item.id, item);
  show();
}

export function clear() {
  if (!chosen.size) return false;
  chosen.clear();
  show();
  return true;
}

function show() {
  for (const tile of document.querySelectorAll(".tile[data-id]")) {
    const is = chosen.has(Number(tile.dataset.id));
    tile.classList.toggle("chosen", is);
    tile.querySelector(".select")?.setAttribute("aria-pressed", is);
  }
  const bar = $("#selection");
  bar.hidden = !chosen.size;
  if (!chosen.size) return;
  const button = (text, onclick, title) => h("button", { type: "button", onclick, title }, text);
  bar.replaceChildren(
    h("b", {}, plural(chosen.size, "picture")),
    button("Copy paths", () => copy("paths"), "One path a line"),
    button("CSV", () => copy("csv"), "Copy as CSV"),
    button("JSON", () => copy("json"), "Copy as JSON Lines"),
    button("ZIP", () => take("/api/zip", { pictures: [...chosen.keys()] }, "diffsim.zip"), "Download the files"),
    state.q !== null && button("Sheet", sheet, "Download query and selection as one picture, with ranks and scores"),
    button("Clear", clear, "Clear the selection (Esc)"),
  );
}

async function rows() {
  const details = await Promise.all([...chosen.keys()].map((id) => get(`/api/pictures/${id}`)));
  return details.map((detail) => {
    const item = chosen.get(detail.id);
    const paths = detail.paths.map((file) => file.path);
    const row = { path: paths[0] ?? "", id: detail.id, width: detail.width, height: detail.height, format: detail.format, bytes: detail.bytes, date: detail.date, date_of: detail.date_of };
    return item.rank === undefined ? { ...row, paths } : { rank: item.rank, score: item.score, likeness: item.likeness, by_chance: item.by_chance, ...row, paths };
  });
}

/** As spreadsheets read it, with quotes doubled. */
const cell = (value) => (value === null || value === undefined ? "" : /[",\n\r]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

async function copy(form) {
  try {
    const found = await rows();
    const text = {
      paths: () => found.map((row) => row.path).join("\n") + "\n",
      json: () => found.map((row) => JSON.stringify(row)).join("\n") + "\n",
      csv: () => {
        const names = Object.keys(found[0]).filter((name) => name !== "paths");
        return [names, ...found.map((row) => names.map((name) => row[name]))].map((line) => line.map(cell).join(",")).join("\n") + "\n";
      },
    }[form]();
    await copyText(text, `${plural(found.length, "picture")} copied as ${form === "paths" ? "paths" : form.toUpperCase()}.`);
  } catch (error) {
    notice(error.message, "problem");
  }
}

export async function take(address, body, name) {
  try {
    notice(`Preparing ${name} …`);
    const data = await blob(address, body);
    const link = h("a", { href: URL.createObjectURL(data), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    notice(`${name} is ready.`);
  } catch (error) {
    notice(error.message, "problem");
  }
}

function sheet() {
  const only = [...chosen.keys()].slice(0, 60);
  take("/api/sheet", { search: searchBody(state), only }, "diffsim.png");
}
