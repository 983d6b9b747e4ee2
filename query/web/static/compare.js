// What each feature space finds similar: the paper's Figure 4, live.

import { search, thumbnailOf, previewOf } from "./api.js";
import { h, say } from "./dom.js";
import { go, index, state } from "./nav.js";
import { take } from "./selection.js";
import { asked, format, searchBody } from "./state.js";
import { meter } from "./tile.js";

const TOP = 8;

export function compareView(main) {
  const stop = new AbortController();
  const spaces = index.spaces.filter((space) => space.answers);
  const rows = h("div.rows", {});
  main.replaceChildren(
    h("div.head", {}, h("h1", {}, "What each space finds similar"), h("div.head-tools", {}, h("button", { type: "button", onclick: () => take("/api/sheet", { search: searchBody(state), compare: spaces.map((space) => space.fingerprint), top: TOP }, "diffsim-compare.png") }, "Sheet"))),
    h("div.compare", {}, h("a.compare-query", { href: format({ ...state, view: "pictures" }), "data-link": true }, h("img", { src: previewOf(state.q), alt: "The query" }), h("span", {}, "query")), rows),
  );
  const ready = Promise.all(spaces.map(one));
  ready.then(() => say(`${spaces.length} spaces compared.`));

  async function one(space) {
    const list = h("ol.strip", {});
    const row = h("section.space-row", { "aria-label": space.name }, h("h2", {}, h("a", { href: format({ ...state, view: "pictures", by: [space.name] }), "data-link": true }, space.name)), list);
    rows.append(row);
    try {
      await search(searchBody(state, { spaces: [space.fingerprint], k: TOP }), (answer) => list.replaceChildren(...tiles(answer, space)), stop.signal);
    } catch (error) {
      if (error.name !== "AbortError") list.replaceChildren(h("li.notice.problem", {}, error.message));
    }
  }
  rows.addEventListener("keydown", (event) => move(event, rows));
  return { ready, close: () => stop.abort() };
}

function tiles(answer, space) {
  return answer.hits.map((hit) => {
    const why = h("button.tool.why", { type: "button", title: "Why is it here?", "aria-label": `Why is it here: ${hit.name}`, onclick: () => go({ ...state, view: "why", b: hit.id, by: [space.name] }) }, "why");
    const tile = h(
      "li.tile.small",
      {},
      h(
        "a.pick",
        { href: format(asked({ ...state, by: [space.name] }, hit.id)), "data-link": true },
        h("div.shot", {}, h("img", { src: thumbnailOf(hit), alt: hit.name, loading: "lazy" })),
        h("span.caption", {}, h("span.line.figures", {}, h("b.rank", {}, String(hit.rank)), meter(hit)), h("span.line.name", { title: hit.name }, hit.name)),
      ),
      h("div.tools", {}, why),
    );
    tile.classList.toggle("sure", hit.certainty === "sure");
    return tile;
  });
}

/** Arrow keys move along a row, and from row to row. */
function move(event, rows) {
  const link = event.target.closest("a.pick");
  if (!link || !event.key.startsWith("Arrow")) return;
  const grid = [...rows.querySelectorAll(".strip")].map((strip) => [...strip.querySelectorAll("a.pick")]);
  const row = grid.findIndex((links) => links.includes(link));
  const column = grid[row].indexOf(link);
  const [down, right] = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  const target = grid[row + down]?.[Math.min(column + right, (grid[row + down]?.length ?? 1) - 1)];
  if (!target) return;
  event.preventDefault();
  target.focus();
}
