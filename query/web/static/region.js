// The part of the query that is compared: a box to draw, move and resize, by mouse, finger or keyboard.

import { upload } from "./api.js";
import { debounce, h, notice } from "./dom.js";
import { go, state } from "./nav.js";
import { asked } from "./state.js";

const LEAST = 0.02; // of a side: a smaller box was a click
const STEP = 0.02;
const CORNERS = { nw: [0, 0], ne: [1, 0], sw: [0, 1], se: [1, 1] };
let byKeys = false; // the box is focused again where it is drawn anew

const clamp = (value, low = 0, high = 1) => Math.min(high, Math.max(low, value));
const between = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1])];
const moved = ([x, y, width, height], by) => [clamp(x + by[0], 0, 1 - width), clamp(y + by[1], 0, 1 - height), width, height];
const resized = ([x, y, width, height], by) => [x, y, clamp(width + by[0], LEAST, 1 - x), clamp(height + by[1], LEAST, 1 - y)];
const same = (a, b) => a && b && a.every((number, i) => Math.abs(number - b[i]) < 1e-4);

/** frame: holds the picture and gets the box. */
export function regionTools(frame, picture) {
  const handles = Object.keys(CORNERS).map((corner) => h("span.handle", { dataset: { corner } }));
  const box = h("div.region-box", { tabindex: "0", role: "group", "aria-label": "The region: arrow keys move it, with Shift they resize it, Delete takes it away", hidden: true }, handles);
  frame.append(box);
  let shown = state.box;
  let drawing = false;

  const place = (given) => {
    shown = given;
    box.hidden = !given;
    if (!given) return;
    ["left", "top", "width", "height"].forEach((side, i) => (box.style[side] = `${100 * given[i]}%`));
  };
  const search = () => {
    if (box.isConnected && !same(shown, state.box)) go({ ...state, box: shown }, { keepScroll: true });
  };
  place(state.box);

  const start = h("button", { type: "button", "aria-pressed": "false", onclick: () => arm(!drawing) }, state.box ? "Draw another region" : "Search by a region");
  const arm = (on) => {
    drawing = on;
    start.setAttribute("aria-pressed", on);
    frame.classList.toggle("drawing", on);
  };
  pointer(frame, picture, box, { armed: () => drawing, now: () => shown, place, search });
  keys(box, { now: () => shown, place, search });
  if (byKeys) queueMicrotask(() => box.focus());
  byKeys = false;

  const parts = [h("div.row", {}, start, state.box && h("button", { type: "button", onclick: () => go({ ...state, box: null }) }, "Whole picture"))];
  if (state.box)
    parts.push(
      h(
        "p.reading",
        {},
        "The part in the box, as the network sees it within the whole picture, is compared with every part of the others. ",
        h("button.text", { type: "button", onclick: () => cutOut(picture) }, "Search with the cut-out alone instead"),
      ),
    );
  parts.push(h("details.numbers", {}, h("summary", {}, "Region by numbers"), numbers()));
  return h("div.region", {}, parts);
}

/** A corner resizes the box, its inside moves it, anywhere else draws another. */
function pointer(frame, picture, box, { armed, now, place, search }) {
  let drag = null; // the box for a spot
  const at = (event) => {
    const area = picture.getBoundingClientRect();
    return [clamp((event.clientX - area.left) / area.width), clamp((event.clientY - area.top) / area.height)];
  };
  const begun = (event) => {
    const from = at(event);
    const on = box.contains(event.target) && !armed();
    if (!on) return armed() || event.pointerType === "mouse" ? (spot) => between(from, spot) : null; // a finger scrolls
    const [x, y, width, height] = now();
    const corner = CORNERS[event.target.dataset.corner];
    if (!corner) return (spot) => moved([x, y, width, height], [spot[0] - from[0], spot[1] - from[1]]);
    const fixed = [corner[0] ? x : x + width, corner[1] ? y : y + height];
    return (spot) => between(fixed, spot);
  };
  frame.addEventListener("pointerdown", (event) => {
    if (event.button || event.target.closest("button")) return;
    drag = begun(event);
    if (!drag) return;
    event.preventDefault();
    frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => drag && place(drag(at(event))));
  frame.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const drawn = drag(at(event));
    drag = null;
    place(drawn[2] > LEAST && drawn[3] > LEAST ? drawn : state.box);
    search();
  });
  frame.addEventListener("pointercancel", () => {
    drag = null;
    place(state.box);
  });
}

function keys(box, { now, place, search }) {
  const later = debounce(500, () => {
    byKeys = box.isConnected && document.activeElement === box;
    search();
  });
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (by) {
      place(event.shiftKey ? resized(now(), by) : moved(now(), by));
      later();
    } else if (event.key === "Delete" || event.key === "Backspace") go({ ...state, box: null }, { keepScroll: true });
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

/** The same by numbers. */
function numbers() {
  const given = state.box ?? [0.25, 0.25, 0.5, 0.5];
  const names = ["left", "top", "width", "height"];
  const inputs = names.map((name, number) => h("input", { type: "number", min: "0", max: "100", step: "any", value: String(Math.round(1000 * given[number]) / 10), "aria-label": `${name}, percent` }));
  const onsubmit = (event) => {
    event.preventDefault();
    const [x, y, width, height] = inputs.map((input) => Math.min(1, Math.max(0, Number(input.value) / 100)));
    go({ ...state, box: [x, y, Math.min(width, 1 - x), Math.min(height, 1 - y)] });
  };
  return h("form.four", { onsubmit }, names.map((name, number) => h("label", {}, `${name} %`, inputs[number])), h("button", {}, "Search"));
}

/** The other reading: the pixels in the box as a separate picture. */
async function cutOut(picture) {
  try {
    await picture.decode();
    const [x, y, width, height] = state.box;
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(width * picture.naturalWidth));
    canvas.height = Math.max(1, Math.round(height * picture.naturalHeight));
    canvas.getContext("2d").drawImage(picture, -Math.round(x * picture.naturalWidth), -Math.round(y * picture.naturalHeight));
    const made = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    const found = await upload(made);
    go(asked(state, found.picture));
  } catch (error) {
    notice(error.message, "problem");
  }
}
