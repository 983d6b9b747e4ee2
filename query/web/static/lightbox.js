// One picture over the whole window: zoomed, moved, with the next and the one before, and all that is known of it.

import { fullOf, get, isUpload, originalOf, previewOf, thumbnailOf } from "./api.js";
import { bytesText, copyText, h, notice, say } from "./dom.js";
import { go, state } from "./nav.js";
import * as selection from "./selection.js";
import { asked, format } from "./state.js";
import { meter } from "./tile.js";
import { Zoom } from "./zoom.js";

const PREVIEW_SIDE = 1600; // as the server makes them
const KEY = "diffsim-details";

/** list: count(), and item(number), which may be a promise; number: where to begin; onClose(number): where it ended. */
export function lightbox(list, number, onClose = () => {}) {
  const back = document.activeElement;
  const picture = h("img", { alt: "", draggable: false });
  const stage = h("div.stage", { tabindex: "0", role: "group", "aria-label": "The picture; arrow keys turn to the next" }, picture);
  const title = h("h2", {});
  const place = h("span.quiet-text", {});
  const share = h("span.share", { title: "Pixels of the screen for one of the picture" });
  const about = h("aside.about-picture", { "aria-label": "About this picture" });
  const button = (text, label, onclick, more = {}) => h("button", { type: "button", title: label, "aria-label": label, onclick, ...more }, text);
  const before = button("‹", "The one before (←)", () => step(-1));
  const next = button("›", "The next (→)", () => step(1));
  before.classList.add("side-button", "before");
  next.classList.add("side-button", "next");
  const details = button("i", "Details (i)", () => chooseDetails());
  const dialog = h(
    "dialog.lightbox",
    { id: "lightbox", "aria-labelledby": "lightbox-title", dataset: { passing: "" } },
    h(
      "div.lightbox-bar",
      {},
      h("div.lightbox-title", {}, title, place),
      h("div.row", {}, share, button("−", "Zoom out (−)", () => zoom.zoom(1 / 1.5), { class: "by-mouse" }), button("+", "Zoom in (+)", () => zoom.zoom(1.5), { class: "by-mouse" }), button("1:1", "Full size (1)", () => actual()), details, button("×", "Close (Esc)", () => dialog.close())),
    ),
    h("div.lightbox-body", {}, h("div.stage-frame", {}, stage, before, next), about),
  );
  title.id = "lightbox-title";
  let item = null;
  let turn = 0;
  const zoom = new Zoom(stage, picture, { onSwipe: step, onZoom: sharpen });

  function showDetails(on) {
    about.hidden = !on;
    details.setAttribute("aria-pressed", String(on));
  }

  function chooseDetails() {
    showDetails(about.hidden);
    try {
      localStorage.setItem(KEY, about.hidden ? "0" : "1");
    } catch {
      // no storage: it lasts until the picture is closed
    }
  }

  async function step(by) {
    const to = number + by;
    if (to < 0 || to >= list.count()) return say(by > 0 ? "This is the last picture." : "This is the first picture.");
    number = to;
    await show();
  }

  async function show() {
    const mine = ++turn;
    const found = await list.item(number);
    if (mine !== turn || !found || !dialog.isConnected) return;
    item = found;
    title.textContent = item.name;
    place.textContent = list.count() > 1 ? `${(number + 1).toLocaleString("en")} of ${list.count().toLocaleString("en")}` : "";
    before.hidden = number === 0;
    next.hidden = number === list.count() - 1;
    if (document.activeElement === document.body) stage.focus(); // a button that was focused is hidden now
    picture.alt = item.name;
    stage.querySelector(".lost")?.remove();
    picture.hidden = false;
    picture.src = thumbnailOf(item); // it is here already
    picture.dataset.shows = "thumbnail";
    zoom.show(item.width, item.height);
    const sharp = () => ((picture.dataset.shows = "preview"), sharpen(zoom.fit * zoom.scale));
    load(`${previewOf(item.id)}?v=${item.version}`, sharp, lost);
    about.replaceChildren(...(isUpload(item.id) ? [h("p", {}, "Only in the memory of this page; it is not in the index.")] : short(item)));
    say(`${item.name}, ${place.textContent}`);
    const more = isUpload(item.id) ? null : await get(`/api/pictures/${item.id}`).catch((error) => notice(error.message, "problem"));
    if (mine === turn && more) about.replaceChildren(...short(item), ...long(more), actions(item));
    for (const near of [number + 1, number - 1]) {
      const other = near >= 0 && near < list.count() ? await list.item(near) : null;
      if (mine === turn && other) new Image().src = `${previewOf(other.id)}?v=${other.version}`;
    }
  }

  /** Show the picture from this address once it is there, and then do more. */
  function load(address, then, failed) {
    const mine = turn;
    const loading = new Image();
    loading.addEventListener("load", () => {
      if (mine !== turn) return;
      picture.src = loading.src;
      then();
    });
    loading.addEventListener("error", () => mine === turn && failed());
    loading.src = address;
  }

  function lost() {
    picture.hidden = true;
    stage.append(h("p.lost", {}, item.offline ? "Its folder is offline; the picture cannot be shown now." : "This picture cannot be shown now."));
  }

  /** Fetch the full size where the screen has more pixels for it than there are. */
  function sharpen(shown) {
    share.textContent = `${Math.round(100 * shown)} %`;
    if (!item || picture.dataset.shows !== "preview") return;
    const longest = Math.max(item.width, item.height);
    if (longest <= PREVIEW_SIDE || shown * longest * devicePixelRatio < 1.1 * PREVIEW_SIDE) return;
    picture.dataset.shows = "waiting";
    load(fullOf(item), () => (picture.dataset.shows = "full"), () => {});
  }

  function actual() {
    zoom.reset();
    zoom.zoom(1 / zoom.fit);
  }

  function actions(one) {
    const link = (text, to) => h("a.button", { href: format(to), "data-link": true }, text);
    const chosen = button(selection.has(one.id) ? "Deselect" : "Select", "Select", () => {
      selection.toggle(one);
      chosen.textContent = selection.has(one.id) ? "Deselect" : "Select";
    });
    return h(
      "div.row",
      {},
      state.q === one.id ? null : h("a.button.primary", { href: format(asked(state, one.id)), "data-link": true }, "Ask with this"),
      state.q !== null && state.q !== one.id ? link("Why is it here?", { ...state, view: "why", b: one.id }) : null,
      chosen,
      h("a.button", { href: originalOf(one), download: "" }, "Download the original"),
    );
  }

  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
    const pans = { ArrowLeft: [80, 0], ArrowRight: [-80, 0], ArrowUp: [0, 80], ArrowDown: [0, -80] };
    const work = {
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
      "+": () => zoom.zoom(1.5),
      "=": () => zoom.zoom(1.5),
      "-": () => zoom.zoom(1 / 1.5),
      "−": () => zoom.zoom(1 / 1.5),
      0: () => zoom.reset(),
      1: actual,
      i: chooseDetails,
      w: () => state.q !== null && item && go({ ...state, view: "why", b: item.id }),
    };
    const pan = pans[event.key] && (event.shiftKey || (zoom.scale > 1 && event.key.match(/Up|Down/)));
    const done = pan ? () => zoom.pan(...pans[event.key]) : work[event.key];
    if (!done) return;
    event.preventDefault();
    done();
  });
  dialog.addEventListener("close", () => {
    turn = -1;
    zoom.close();
    dialog.remove();
    if (back?.isConnected) back.focus();
    onClose(number);
  });
  document.body.append(dialog);
  let wanted = innerWidth > 860;
  try {
    wanted = localStorage.getItem(KEY) === null ? wanted : localStorage.getItem(KEY) === "1";
  } catch {
    // no storage
  }
  showDetails(wanted);
  dialog.showModal();
  show();
  stage.focus();
}

/** What a hit or a picture of a list says of itself. */
function short(item) {
  const row = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
  if (item.rank === undefined) return [];
  return [
    h("p.figures", {}, h("b", {}, `Number ${item.rank}`), meter(item)),
    h("dl", {}, row("Likeness", item.likeness === null ? "not known" : `${item.standing} spreads above the middle of this collection`), row("Score", item.score.toFixed(4)), item.chance === null ? [] : row("By chance", `${item.chance} pictures as close as this one`), state.by.length ? row("Ranked by", state.by.join(" + ")) : []),
  ];
}

function long(more) {
  const row = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
  const copy = (path) => h("button.copy", { type: "button", "aria-label": `Copy the path ${path}`, onclick: () => copyText(path, "The path is copied.") }, "Copy");
  const date = more.date ? row("Date", `${more.date.slice(0, 16).replace("T", " ")} (${more.date_of === "picture" ? "the picture’s own" : "of the file"})`) : [];
  return [
    h("dl", {}, row("Size", `${more.width.toLocaleString("en")} × ${more.height.toLocaleString("en")} px, ${more.format}, ${bytesText(more.bytes)}`), date),
    h("ul.paths", {}, more.paths.map((file) => h("li", {}, h("span", {}, file.path, file.there ? "" : " (not there now)"), copy(file.path)))),
  ];
}
