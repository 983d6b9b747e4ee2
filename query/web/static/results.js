// Ranked neighbours of a query: the first stage's order at once, then that of the full score; a line where likeness ends.

import { search } from "./api.js";
import { h, plural, say } from "./dom.js";
import { Grid } from "./grid.js";
import { state } from "./nav.js";
import { queryPanel } from "./query.js";
import { addAll, take } from "./selection.js";
import { filtersOn, format, searchBody } from "./state.js";
import { makeTile, updateTile } from "./tile.js";

const known = new Map(); // address -> answer, for the way back
const KEPT = 20;

export function results(main) {
  const stop = new AbortController();
  const address = format(state);
  const head = h("div.head", {});
  const notes = h("div.notes", {});
  const near = h("div", {});
  const beyond = h("section.beyond", { hidden: true });
  const column = h("div.column", {}, head, notes, near, beyond);
  const panel = queryPanel();
  main.replaceChildren(h("div.asked", {}, panel.element, column));
  const grids = [];
  let hits = [];
  let ends = 0;
  let open = null; // not chosen yet: the rest is then shown if there is nothing else

  const grid = makeGrid("Neighbours", () => 0);
  const rest = makeGrid("Beyond likeness", () => ends);
  near.append(grid.element);
  grid.onLeave = (event, side) => {
    if (side > 0 && !beyond.hidden) {
      event.preventDefault();
      open ? rest.focus(0) : beyond.querySelector("button").focus();
    }
  };
  rest.onLeave = (event, side) => {
    if (side < 0 && grid.count) {
      event.preventDefault();
      grid.focus(grid.count - 1);
    }
  };

  function makeGrid(label, from) {
    const made = new Grid({
      label,
      count: 0,
      item: (number) => hits[from() + number] ?? null,
      key: (one) => one.id,
      make: makeTile,
      update: updateTile,
    });
    grids.push(made);
    return made;
  }

  function show(answer) {
    const ranked = answer.stage === "ranked";
    hits = answer.hits;
    const first = hits.findIndex((hit) => hit.ended);
    ends = ranked && first >= 0 ? first : hits.length;
    grid.refresh(ends);
    beyond.hidden = ends === hits.length;
    if (ranked) open ??= ends === 0;
    if (!beyond.hidden) drawBeyond();
    rest.refresh(open ? hits.length - ends : 0);
    const names = answer.spaces.map((space) => space.name).join(" + ");
    const found = ranked ? plural(ends, "similar picture") : "…";
    head.replaceChildren(
      h("h1", {}, !ranked ? "Ranking …" : ends ? found : hits.length ? "None more similar than by chance" : "Nothing to show"),
      h("p.count", { title: `${answer.recalled} recalled, ${answer.scored} scored in full` }, ranked ? `by ${names} · ${answer.scored.toLocaleString("en")} of ${answer.pictures.toLocaleString("en")} scored in ${answer.seconds.toFixed(2)} s` : `${plural(answer.recalled, "candidate")} by ${names}`),
      h(
        "div.head-tools",
        {},
        ranked && ends > 0 && h("button", { type: "button", onclick: () => addAll(hits.slice(0, ends)) }, "Select these"),
        ranked && h("button", { type: "button", title: "Query and first hits as one picture", onclick: () => take("/api/sheet", { search: searchBody(state), top: 12 }, "diffsim.png") }, "Sheet"),
      ),
    );
    head.classList.toggle("working", !ranked);
    const lacking = answer.notes.slice(0, answer.unanswered.length);
    const told = !answer.pictures && filtersOn(state.filters) ? ["No picture passes the filters; remove some of them."] : answer.notes.slice(lacking.length);
    notes.replaceChildren(
      ...lacking.map((note) => h("p.notice.problem", { role: "alert" }, note)),
      ...told.map((note) => h("p.notice", {}, note)),
    );
    if (ranked && !ends) near.classList.add("none");
    if (ranked) say(`${plural(ends, "neighbour")} by ${names}${beyond.hidden ? "" : "; there likeness ends"}.`);
  }

  function drawBeyond() {
    const count = hits.length - ends;
    beyond.replaceChildren(
      h(
        "div.end",
        {},
        h("h2", {}, ends ? "Likeness ends here" : "No likeness here"),
        h("p", {}, "From here on, more than one picture of this collection is expected to score as high by chance alone."),
        h("button", { type: "button", "aria-expanded": String(Boolean(open)), onclick: toggle }, open ? "Hide them" : `Show ${plural(count, "more picture")}`),
      ),
      rest.element,
    );
  }

  function toggle() {
    open = !open;
    drawBeyond();
    rest.refresh(open ? hits.length - ends : 0);
    if (open) rest.layout();
    beyond.querySelector("button").focus();
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
      grids.forEach((one) => one.close());
    },
  };
}

/** Earlier searches may have other answers now. */
export const forget = () => known.clear();
