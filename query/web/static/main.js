// The page: which view is shown, the header, dropped and pasted pictures, and the keys that work everywhere.

import { get, upload } from "./api.js";
import { compareView } from "./compare.js";
import { $, h, notice, say } from "./dom.js";
import { forgetFolders } from "./filters.js";
import { indexView } from "./indexview.js";
import { go, index, start, state } from "./nav.js";
import { forget, results } from "./results.js";
import * as selection from "./selection.js";
import { shelf } from "./shelf.js";
import { asked } from "./state.js";
import { whyView } from "./why.js";
import { drawWords } from "./words.js";

const MOST_PICTURES = 21; // the query and 20 examples, as the API takes them

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
      const title = `${space.name}${number < 9 ? ` (key ${number + 1})` : ""}; Shift weighs it together with the others`;
      return h("button", { type: "button", title, "aria-pressed": String(pressed), onclick: (event) => chooseSpace(space, event.shiftKey ? on : null) }, space.short);
    }),
  );
}

function chooseSpace(space, beside) {
  const by = !beside ? [space.name] : beside.includes(space.name) ? beside.filter((name) => name !== space.name) : [...beside, space.name];
  if (by.length) go({ ...state, by }, { keepScroll: true });
}

async function readIndex() {
  const found = await get("/api/index");
  const short = (name) => name.split("/").pop();
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

// Pictures from outside

/** The first is the query, the others are further examples of weight 1. */
async function askWith(files) {
  if (!files.length) return;
  say(files.length > 1 ? "Reading the pictures …" : "Reading the picture …");
  document.body.classList.add("busy");
  const found = new Set();
  const problems = [];
  for (const file of files.slice(0, MOST_PICTURES)) {
    try {
      found.add((await upload(file)).picture);
    } catch (error) {
      problems.push(files.length > 1 ? `${file.name}: ${error.message}` : error.message);
    }
  }
  document.body.classList.remove("busy");
  const [first, ...others] = found;
  if (first !== undefined) go({ ...asked(state, first), also: others.map((picture) => ({ picture, weight: 1 })) });
  if (files.length > MOST_PICTURES) problems.push(`Only the first ${MOST_PICTURES} of ${files.length} pictures were read.`);
  if (problems.length) notice(problems.slice(0, 3).join(" ") + (problems.length > 3 ? ` And ${problems.length - 3} more.` : ""), "problem");
  else if (others.length) notice(`Searched with ${found.size} pictures together, each with weight 1.`);
}

function outside() {
  const input = $("#file");
  $("#choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    askWith([...input.files]);
    input.value = "";
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    askWith(files);
  });
  const drop = $("#drop");
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    drop.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.hidden = true;
  });
  addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    drop.hidden = true;
    askWith([...event.dataTransfer.files]);
  });
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
