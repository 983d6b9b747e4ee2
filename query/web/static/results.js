// Ranked neighbours of a query: the first stage's order at once, then that of the full score, each with how sure it is.

import { search } from "./api.js";
import { h, plural, say } from "./dom.js";
import { Grid } from "./grid.js";
import { lightbox } from "./lightbox.js";
import { chips, listTools, tileSide } from "./listtools.js";
import { go, state } from "./nav.js";
import { queryPanel } from "./query.js";
import * as selection from "./selection.js";
import { MOST_HITS, SOME_HITS, filtersOn, format, searchBody } from "./state.js";
import { makeTile, updateTile } from "./tile.js";

const known = new Map(); // address -> answer, for the way back
const KEPT = 20;

export function results(main) {
  const stop = new AbortController();
  const address = format(state);
  const head = h("div.head", {});
  const notes = h("div.notes", {});
  const holder = h("div", {});
  const panel = queryPanel();
  const further = h("p.further", {});
  const tools = listTools({ usual: "closest first", more: { name: "file name" }, onSize: (side) => grid.resize(side) });
  main.replaceChildren(h("div.asked", {}, panel.element, h("div.column", {}, ...[head, tools, chips(), notes, holder, further].filter(Boolean))));
  let hits = [];

  const grid = new Grid({ label: "Neighbours", count: 0, item: (number) => hits[number] ?? null, key: (one) => one.id, make: makeTile, update: updateTile, least: tileSide() });
  holder.append(grid.element);
  selection.among((first, last) => hits.slice(first, last + 1));
  grid.element.addEventListener("enlarge", (event) => {
    lightbox({ count: () => hits.length, item: (number) => hits[number] }, event.detail, (number) => grid.focus(number));
  });

  function show(answer) {
    const ranked = answer.stage === "ranked";
    hits = ranked ? inOrder(answer.hits) : answer.hits;
    grid.refresh(hits.length);
    const names = answer.spaces.map((space) => space.name).join(" + ");
    const certain = hits.filter((hit) => hit.certainty && hit.certainty !== "weak");
    head.replaceChildren(
      h("h1", {}, ranked ? headline(hits) : "Ranking …"),
      h("p.count", { title: `${answer.recalled} recalled, ${answer.scored} scored in full` }, ranked ? `by ${names} · ${answer.scored.toLocaleString("en")} of ${answer.pictures.toLocaleString("en")} scored in ${answer.seconds.toFixed(2)} s` : `${plural(answer.recalled, "candidate")} by ${names}`),
      h(
        "div.head-tools",
        {},
        ranked && certain.length > 0 && h("button", { type: "button", onclick: () => selection.addAll(certain) }, `Select ${certain.length.toLocaleString("en")} sure or likely`),
        ranked && h("button", { type: "button", title: "Query and first hits as one picture", onclick: () => selection.take("/api/sheet", { search: searchBody(state), top: 12 }, "diffsim.png") }, "Sheet"),
      ),
    );
    head.classList.toggle("working", !ranked);
    const lacking = answer.notes.slice(0, answer.unanswered.length);
    const told = !answer.pictures && filtersOn(state.filters) ? ["No picture passes the filters; remove some of them."] : answer.notes.slice(lacking.length);
    notes.replaceChildren(
      ...lacking.map((note) => h("p.notice.problem", { role: "alert" }, note)),
      ...told.map((note) => h("p.notice", {}, note)),
    );
    const more = ranked && hits.length >= state.k && state.k < MOST_HITS && answer.pictures > hits.length;
    further.replaceChildren(...(more ? [h("button", { type: "button", onclick: () => go({ ...state, k: Math.min(MOST_HITS, state.k + SOME_HITS) }, { replace: true, keepScroll: true }) }, `Show ${SOME_HITS} more`)] : []));
    if (ranked) say(`${headline(hits)}, by ${names}.`);
  }

  head.replaceChildren(h("h1", {}, "Searching …"));
  head.classList.add("working");
  const before = known.get(address);
  const ready = before
    ? Promise.resolve(show(before))
    : search(searchBody(state), (answer) => {
        show(answer);
        if (answer.stage !== "ranked") return;
        known.set(address, answer);
        if (known.size > KEPT) known.delete(known.keys().next().value);
      }, stop.signal).catch((error) => {
        if (error.name === "AbortError") return;
        head.classList.remove("working");
        head.replaceChildren(h("h1", {}, error.status === 410 ? "This picture is gone" : "That did not work"));
        notes.replaceChildren(h("p.notice.problem", { role: "alert" }, error.message), h("p", {}, h("a.button", { href: "/", "data-link": true }, "All pictures")));
        say(error.message);
      });
  return {
    grid,
    ready,
    close() {
      stop.abort();
      panel.close?.();
      grid.close();
    },
  };
}

/** As the person wants them; the rank that each shows is by likeness. */
function inOrder(hits) {
  const by = {
    name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
    newest: (a, b) => (b.date ?? "").localeCompare(a.date ?? ""),
    oldest: (a, b) => (a.date ?? "9").localeCompare(b.date ?? "9"),
    largest: (a, b) => b.bytes - a.bytes,
    smallest: (a, b) => a.bytes - b.bytes,
  }[state.sort];
  return by ? [...hits].sort(by) : hits;
}

/** How many there are, and how many of them are certain. */
function headline(hits) {
  const count = (word) => hits.filter((hit) => hit.certainty === word).length;
  const [sure, likely] = [count("sure"), count("likely")];
  const words = [sure && `${sure.toLocaleString("en")} of them sure`, likely && `${likely.toLocaleString("en")} ${sure ? "" : "of them "}likely`].filter(Boolean);
  if (!hits.length) return "Nothing to show";
  return [`Closest ${hits.length.toLocaleString("en")}`, ...words].join(", ");
}

/** Earlier searches may have other answers now. */
export const forget = () => known.clear();
