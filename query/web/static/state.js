// The address bar holds the whole view: what is asked, how, and among which pictures.

const UPLOAD = /^u[0-9a-f]{32}$/;
export const SOME_HITS = 200;
export const MOST_HITS = 1000; // as the API takes them
const NUMBERS = ["min_side", "max_side", "min_bytes", "max_bytes"];

const picture = (text) => (UPLOAD.test(text) ? text : /^[1-9][0-9]{0,15}$/.test(text) ? Number(text) : null);

function box(text) {
  const numbers = (text ?? "").split(",").map(Number);
  return numbers.length === 4 && numbers.every(Number.isFinite) ? numbers : null;
}

export const emptyFilters = () => ({ folders: [], formats: [] });

/** The state behind an address. */
export function parse(address) {
  const { pathname, searchParams: given } = new URL(address, location.origin);
  const filters = emptyFilters();
  filters.folders = given.getAll("folder");
  filters.formats = given.getAll("format");
  const name = (given.get("name") ?? "").trim().slice(0, 200);
  if (name) filters.name = name;
  if (/^#[0-9a-f]{6}$/i.test(given.get("colour") ?? "")) filters.colours = [given.get("colour")];
  for (const name of ["after", "before"]) if (/^\d{4}-\d\d-\d\d$/.test(given.get(name) ?? "")) filters[name] = given.get(name);
  for (const name of NUMBERS) if (/^[1-9]\d{0,14}$/.test(given.get(name) ?? "")) filters[name] = Number(given.get(name));
  const also = given.getAll("also").map((text) => {
    const [id, weight] = text.split("@");
    return { picture: picture(id), weight: Number(weight ?? 1) };
  });
  return {
    view: { "/compare": "compare", "/why": "why", "/index": "index" }[pathname] ?? "pictures",
    q: picture(given.get("q") ?? ""),
    words: (given.get("words") ?? "").trim(),
    b: picture(given.get("b") ?? ""),
    at: given.get("at"),
    by: (given.get("by") ?? "").split(",").filter(Boolean),
    box: box(given.get("box")),
    also: also.filter((example) => example.picture !== null && Number.isFinite(example.weight) && example.weight !== 0),
    filters,
    fold: given.get("fold") === "1",
    sort: given.get("sort"),
    k: Math.min(MOST_HITS, Math.max(SOME_HITS, Number(given.get("k")) || SOME_HITS)),
  };
}

/** The address of a state. */
export function format(state) {
  const given = new URLSearchParams();
  if (state.q !== null && state.view !== "index") given.set("q", state.q);
  if (state.words && state.view === "pictures") given.set("words", state.words);
  if (state.view === "why" && state.b !== null) given.set("b", state.b);
  if (state.view === "why" && state.at) given.set("at", state.at);
  if (state.by.length) given.set("by", state.by.join(","));
  if (state.box) given.set("box", state.box.map((number) => Number(number.toFixed(4))).join(","));
  for (const example of state.also) given.append("also", `${example.picture}@${example.weight}`);
  for (const folder of state.filters.folders) given.append("folder", folder);
  for (const name of state.filters.formats) given.append("format", name);
  for (const colour of state.filters.colours ?? []) given.append("colour", colour);
  for (const name of ["name", "after", "before", ...NUMBERS]) if (state.filters[name]) given.set(name, state.filters[name]);
  if (state.fold) given.set("fold", "1");
  if (state.sort) given.set("sort", state.sort);
  if (state.q !== null && state.k !== SOME_HITS) given.set("k", state.k);
  const path = { compare: "/compare", why: "/why", index: "/index", pictures: "/" }[state.view];
  const text = given.toString().replaceAll("%2F", "/").replaceAll("%2C", ",").replaceAll("%40", "@");
  return path + (text ? `?${text}` : "");
}

/** The same view with another query: a region and further examples belonged to the old one. */
export const asked = (state, q) => ({ ...state, view: "pictures", q, words: "", b: null, at: null, box: null, also: [], k: SOME_HITS });

export const filtersOn = (filters) =>
  filters.folders.length + filters.formats.length + ["colours", "name", "after", "before", ...NUMBERS].filter((name) => filters[name]).length;

/** The body of /api/search. */
export function searchBody(state, more = {}) {
  // Words are the query, or beside a picture one of its examples.
  const subject = state.q === null ? { text: state.words } : { picture: state.q };
  const examples = state.q !== null && state.words ? [...state.also, { text: state.words }] : state.also;
  return { ...subject, region: state.box, examples, spaces: state.by, filters: state.filters, fold: state.fold, k: state.k, ...more };
}
