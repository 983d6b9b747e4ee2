// One picture with its caption and its buttons.

import { thumbnailOf } from "./api.js";
import { h } from "./dom.js";
import { go, state } from "./nav.js";
import * as selection from "./selection.js";
import { asked, format } from "./state.js";

/** item: a picture or a hit of the API. */
export function makeTile(item) {
  const link = h("a.pick", { href: format(asked(state, item.id)), "data-link": true }, shot(item), caption(item));
  const enlarge = h("button.tool.open", { type: "button", title: "Open it large (o)", "aria-label": `Open it large: ${item.name}` });
  const tile = h("li.tile", { dataset: { id: item.id } }, link, tools(item), enlarge);
  enlarge.addEventListener("click", () => open(tile));
  dress(tile, item);
  tile.addEventListener("keydown", (event) => onKey(event, item, tile));
  return tile;
}

/** What may change while the tile stays: rank, score, whether it is selected. */
export function updateTile(tile, item) {
  tile.querySelector(".pick").href = format(asked(state, item.id));
  tile.querySelector(".caption").replaceWith(caption(item));
  dress(tile, item);
}

function dress(tile, item) {
  tile.classList.toggle("sure", item.certainty === "sure");
  tile.classList.toggle("offline", item.offline);
  const chosen = selection.has(item.id);
  tile.classList.toggle("chosen", chosen);
  tile.querySelector(".select")?.setAttribute("aria-pressed", chosen);
}

function shot(item) {
  const picture = h("img", { src: thumbnailOf(item), alt: item.name, decoding: "async", draggable: "true" });
  const frame = h("div.shot", {}, picture);
  picture.addEventListener("error", () => {
    if (picture.hasAttribute("src")) frame.replaceChildren(h("span.lost", {}, item.offline ? "offline" : "cannot be shown now"));
  });
  const badges = h("span.badges", {});
  if (item.offline) badges.append(h("span.badge", { title: "Its folder cannot be read at the moment." }, "offline"));
  if (item.duplicates?.length) badges.append(h("span.badge.stack", { title: `${item.duplicates.length} near copies are grouped with this one` }, `+${item.duplicates.length}`));
  else if (item.files > 1) badges.append(h("span.badge.stack", { title: `${item.files} files hold this picture` }, `${item.files} files`));
  if (badges.childElementCount) frame.append(badges);
  return frame;
}

function caption(item) {
  const hit = item.rank !== undefined;
  const first = hit
    ? h("span.line.figures", {}, h("b.rank", {}, h("span.quiet", {}, "Rank "), String(item.rank)), meter(item), standing(item))
    : null;
  return h("span.caption", {}, first, h("span.line.name", { title: item.name }, item.name), h("span.line.folder", { title: item.folder }, lastOf(item.folder)));
}

/** How alike a hit is, in a number. */
export function standing(item) {
  const title = item.likeness === null ? "score" : `${item.standing} spreads above what pictures of this collection score in the middle; score ${item.score.toFixed(4)}`;
  return h("span.score", { title }, item.standing);
}

/** How sure it is, as a word and a bar: full where a thousandth of a picture is expected by chance, empty from 100 on. */
export function meter(item) {
  if (item.chance === null) return h("span.meter.pending", {});
  const bar = h("span.bar-of", { "aria-hidden": "true" }, h("i"));
  bar.firstChild.style.width = `${100 * Math.min(1, Math.max(0.04, (2 - Math.log10(Math.max(item.by_chance, 1e-9))) / 5))}%`;
  return h("span.meter", { class: `meter ${item.certainty}`, title: `${item.chance} pictures of this collection are expected to score as high by chance` }, bar, h("span.chance", {}, item.certainty));
}

/** The end of a folder's path says more than its beginning. */
const lastOf = (folder) => {
  const parts = folder.split("/").filter(Boolean);
  return parts.length > 2 ? `…/${parts.slice(-2).join("/")}` : folder;
};

function tools(item) {
  const button = (name, text, title, onclick, more = {}) => h(`button.tool.${name}`, { type: "button", title, "aria-label": `${title}: ${item.name}`, onclick, ...more }, text);
  return h(
    "div.tools",
    {},
    button("select", "✓", "Select (Shift: all from the last one)", (event) => selection.pick(item, numberOf(event), event.shiftKey), { "aria-pressed": "false" }),
    state.q !== null && [
      button("why", "why", "Why is it here?", () => why(item)),
      button("more", "+", "More like this too", () => weigh(item, 1)),
      button("less", "−", "Less like this", () => weigh(item, -0.5)),
    ],
  );
}

const numberOf = (event) => Number(event.target.closest("[data-number]").dataset.number);

/** The view shows it over the window. */
function open(tile) {
  tile.dispatchEvent(new CustomEvent("enlarge", { bubbles: true, detail: Number(tile.dataset.number) }));
}

function why(item) {
  if (state.q !== null) go({ ...state, view: "why", b: item.id });
}

/** Add it to the examples, or change its weight. */
export function weigh(item, weight) {
  if (state.q === null || state.q === item.id) return;
  const also = state.also.filter((example) => example.picture !== item.id);
  go({ ...state, view: "pictures", also: [...also, { picture: item.id, weight }] });
}

function onKey(event, item, tile) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const onLink = event.target.matches("a");
  const work = { o: () => open(tile), w: () => why(item), "+": () => weigh(item, 1), "-": () => weigh(item, -0.5), "−": () => weigh(item, -0.5) };
  if (event.key === " " && onLink) work[" "] = () => selection.pick(item, numberOf(event), event.shiftKey);
  if (!(event.key in work)) return;
  event.preventDefault();
  work[event.key]();
}
