// All pictures of the index, by folder and name: shown until something is searched.

import { get, post } from "./api.js";
import { h, notice, plural, say } from "./dom.js";
import { filterBar } from "./filters.js";
import { Grid } from "./grid.js";
import { chips, listTools, tileSide } from "./listtools.js";
import { lightbox } from "./lightbox.js";
import { index, state } from "./nav.js";
import * as selection from "./selection.js";
import { filtersOn } from "./state.js";
import { makeTile, updateTile } from "./tile.js";

const PAGE = 100;
const KEPT = 60; // pages
const SERVED = { newest: 1, oldest: 1, largest: 1, smallest: 1 }; // orders of the API

export function shelf(main) {
  const pages = new Map(); // number of a page -> {generation: of the catalog, items}
  const waiting = new Set(); // numbers of pages
  const stop = new AbortController();
  const title = h("h1", {}, "All pictures");
  const count = h("p.count", {}, "");
  const holder = h("div", {});
  const tools = listTools({ usual: "folder and name", onSize: (side) => grid.resize(side) });
  main.replaceChildren(...[welcome(), h("div.head", {}, title, count), tools, chips(), filterBar(), holder].filter(Boolean));

  const item = (number) => pages.get(Math.floor(number / PAGE))?.items[number % PAGE] ?? null;
  const grid = new Grid({ label: "All pictures", count: 0, item, key: (one) => one.id, make: makeTile, update: updateTile, onNeed: need, least: tileSide(), caption: 42 });
  holder.append(grid.element);
  const fetched = async (number) => item(number) ?? (await fetchPage(Math.floor(number / PAGE)), item(number));
  selection.among(async (first, last) => {
    for (let page = Math.floor(first / PAGE); page <= Math.floor(last / PAGE); page++) if (!pages.has(page)) await fetchPage(page);
    return Array.from({ length: last - first + 1 }, (_, i) => item(first + i));
  });
  grid.element.addEventListener("enlarge", (event) => {
    lightbox({ count: () => grid.count, item: fetched }, event.detail, (number) => grid.focus(number));
  });

  let generation = 0; // the latest
  let timer;
  /** Fetch the pages of what is on the screen, once it stays there: a moved scroll bar passes by most of a million.
   * Pages of an older generation are shown until they have been fetched again. */
  function need(first, last) {
    const wanted = [];
    for (let page = Math.floor(first / PAGE); page <= Math.floor((last - 1) / PAGE); page++)
      if (pages.get(page)?.generation !== generation && !waiting.has(page)) wanted.push(page);
    clearTimeout(timer);
    if (wanted.length) timer = setTimeout(() => wanted.forEach(fetchPage), pages.size ? 60 : 0);
  }

  async function fetchPage(page) {
    waiting.add(page);
    const order = state.sort in SERVED ? `&order=${state.sort}` : "";
    const address = `/api/pictures?offset=${page * PAGE}&limit=${PAGE}${order}`;
    try {
      const found = await (filtersOn(state.filters) ? post(address, state.filters, stop.signal) : get(address, stop.signal));
      generation = Math.max(generation, found.generation);
      keep(page, found);
      if (found.total !== grid.count || !count.textContent) {
        count.textContent = plural(found.total, "picture");
        say(`${plural(found.total, "picture")}.`);
        if (!found.total) holder.append(empty());
        grid.refresh(found.total);
      } else grid.draw();
    } catch (error) {
      if (error.name !== "AbortError") notice(error.message, "problem");
    } finally {
      waiting.delete(page);
    }
  }

  /** The pages farthest from this one are forgotten. */
  function keep(page, found) {
    pages.set(page, found);
    if (pages.size > KEPT) pages.delete([...pages.keys()].reduce((a, b) => (Math.abs(a - page) > Math.abs(b - page) ? a : b)));
  }

  const ready = fetchPage(0).then(() => grid.refresh());
  return {
    grid,
    ready,
    scrolled: () => grid.scrolled(),
    scrollTo: (pixels) => grid.scrollTo(pixels),
    close() {
      stop.abort();
      clearTimeout(timer);
      grid.close();
    },
  };
}

const empty = () =>
  h("p.notice", {}, filtersOn(state.filters) ? "No picture passes the filters; remove some." : "The index holds no pictures yet; add some with `diffsim index FOLDER`.");

function welcome() {
  const names = index.spaces.map((space) => space.short).join(", ");
  return h(
    "div.welcome",
    {},
    h("p", {}, h("b", {}, "Drop, paste or choose a picture"), " to find similar ones, or click one below."),
    names && h("p.quiet-text", {}, `Here, similar can mean: ${names}.`),
  );
}
