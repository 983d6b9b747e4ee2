// The page: which view is shown, the header, dropped and pasted pictures, and the keys that work everywhere.

import { get } from "./api.js";
import { compareView } from "./compare.js";
import { $, h, notice } from "./dom.js";
import { forgetFolders } from "./folders.js";
import { indexView } from "./indexview.js";
import { go, index, start, state } from "./nav.js";
import { outside } from "./outside.js";
import { forget, results } from "./results.js";
import * as selection from "./selection.js";
import { shelf } from "./shelf.js";
import { whyView } from "./why.js";
import { drawWords } from "./words.js";

let view = null;

async function render(now, { scroll = 0 } = {}) {
  view?.close();
  document.querySelectorAll("[data-passing]").forEach((one) => one.remove());
  drawSpaces(now);
  drawWords(now);
  if (now.view === "index") $("#to-index").setAttribute("aria-current", "page");
  else $("#to-index").removeAttribute("aria-current");
  const main = $("#main");
  main.className = `view-${now.view}`;
  const make = now.view === "index" ? indexView : now.q === null ? (now.words ? results : shelf) : now.view === "why" && now.b !== null ? whyView : now.view === "compare" ? compareView : results;
  document.title = { shelf: "All pictures", results: "Neighbours", whyView: "Why?", compareView: "Spaces compared", indexView: "The index" }[make.name] + " – diffsim";
  const made = make(main);
  view = made;
  if (!scroll) scrollTo(0, 0);
  await made.ready;
  if (view === made && scroll) made.scrollTo ? made.scrollTo(scroll) : scrollTo(0, scroll);
  document.body.dataset.ready = String(Number(document.body.dataset.ready ?? 0) + 1);
}

/** What similar means: one space, or several weighed together, by Shift. */
function drawSpaces(now) {
  const spaces = index.spaces.filter((space) => space.answers);
  const group = $("#spaces");
  group.hidden = now.q === null || now.view !== "pictures" || spaces.length < 2;
  const on = now.by.length ? now.by.map((name) => name.replace(/:[^:/]*$/, "")) : spaces.slice(0, 1).map((space) => space.name);
  group.replaceChildren(
    ...spaces.map((space, number) => {
      const pressed = on.includes(space.name) || on.includes(space.fingerprint);
      const title = `${MEANING[space.short] ?? ""} ${space.name}${number < 9 ? ` (key ${number + 1})` : ""}; Shift weighs it together with the others`;
      return h("button", { type: "button", title, "aria-pressed": String(pressed), onclick: (event) => chooseSpace(space, event.shiftKey ? on : null) }, space.short);
    }),
  );
  const help = $("#spaces-help");
  help.hidden = group.hidden;
  help.textContent = on.length > 1 ? "Several together: each counts alike." : (MEANING[short(on[0] ?? "")] ?? "");
}

/** What each profile takes for alike, in a line. */
const MEANING = {
  style: "How it is made: technique, colours, texture.",
  instance: "The same thing: this very object, person or place.",
  look: "The whole impression: what is where, and in which colours.",
};
const short = (name) => name.split("/").pop();

function chooseSpace(space, beside) {
  const by = !beside ? [space.name] : beside.includes(space.name) ? beside.filter((name) => name !== space.name) : [...beside, space.name];
  if (by.length) go({ ...state, by }, { keepScroll: true });
}

async function readIndex() {
  const found = await get("/api/index");
  index.spaces = found.spaces.map((space) => {
    const twins = found.spaces.filter((other) => other.answers && short(other.name) === short(space.name));
    return { ...space, short: twins.length > 1 ? space.name : short(space.name) };
  });
  if (found.generation !== index.generation) {
    forget();
    forgetFolders();
  }
  index.pictures = found.pictures;
  index.generation = found.generation;
}

// Keys and header

function toggleTheme() {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("diffsim-theme", document.documentElement.dataset.theme);
  } catch {
    // no storage: it lasts until the page is left
  }
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const spaces = index.spaces.filter((space) => space.answers);
  const digit = /^[1-9]$/.test(event.key) ? spaces[Number(event.key) - 1] : null;
  if (digit && state.q !== null && state.view !== "index") chooseSpace(digit, null);
  else if (event.key === "/") $("#choose").click();
  else if (event.key === "?") $("#help-dialog").showModal();
  else if (event.key === "c" && state.q !== null) go({ ...state, view: "compare", box: null });
  else if (event.key === "f") openFilters();
  else if (event.key === "Escape") {
    if (!selection.clear() && (state.view === "why" || state.view === "compare")) go({ ...state, view: "pictures", b: null });
  } else if (event.key.startsWith("Arrow") && view?.grid?.count && [document.body, $("#main")].includes(document.activeElement)) view.grid.enter();
  else return;
  event.preventDefault();
}

function openFilters() {
  const filters = $("#filters");
  if (!filters) return;
  filters.open = true;
  filters.dispatchEvent(new Event("toggle"));
  filters.querySelector("select, input")?.focus();
}

$("#help").addEventListener("click", () => $("#help-dialog").showModal());
$("#theme").addEventListener("click", toggleTheme);
addEventListener("keydown", onKey);
outside();
readIndex()
  .catch((error) => notice(error.message, "problem"))
  .then(() => start(render, () => view?.scrolled?.() ?? scrollY));
setInterval(() => document.hidden || readIndex().catch(() => {}), 30_000);
