// Why two pictures have their score: both side by side under a map of what is found in the other, and, for a spot in
// one, where its attention falls in the other.

import { get, previewOf } from "./api.js";
import { debounce, h, say } from "./dom.js";
import { index, state } from "./nav.js";
import { format } from "./state.js";

// viridis (matplotlib, CC0): even steps look even, for colour-blind eyes too
const VIRIDIS = ["440154", "482878", "3e4a89", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

function colour(share) {
  const place = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const below = Math.min(VIRIDIS.length - 2, Math.floor(place));
  return VIRIDIS[below].map((channel, i) => channel + (VIRIDIS[below + 1][i] - channel) * (place - below));
}

/** Values on a grid as a small canvas, which CSS enlarges smoothly. */
function paint(canvas, rows, low, high, alpha) {
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  const pixels = new ImageData(canvas.width, canvas.height);
  rows.flat().forEach((value, i) => {
    const share = (value - low) / (high - low || 1);
    pixels.data.set([...colour(share), 255 * alpha(share)], 4 * i);
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

export function whyView(main) {
  const stop = new AbortController();
  // The space that is drawn comes first; the others that the search weighs together have their scores told.
  const spaces = state.by.includes(state.at) ? [state.at, ...state.by.filter((name) => name !== state.at)] : state.by;
  const named = (names) => names.map((name) => `&space=${encodeURIComponent(name)}`).join("");
  const address = (kind, a, b) => `/api/why${kind}?a=${a}&b=${b}${named(kind ? spaces.slice(0, 1) : spaces)}`;
  const head = h("div.head", {}, h("h1", {}, "Why?"));
  const left = side("The query", state.q);
  const right = side("The neighbour", state.b);
  const words = h("p.why-words", { role: "status", "aria-live": "polite" }, "Move over a spot in one picture to see where its attention falls in the other.");
  const legend = h("div.legend", {});
  main.replaceChildren(head, h("div.pair", {}, left.element, right.element), words, legend);
  let heat = true;
  let found = null;

  const ready = get(address("", state.q, state.b) + (state.box ? `&region=${state.box.join(",")}` : ""), stop.signal).then(show, (error) => {
    if (error.name !== "AbortError") head.after(h("p.notice.problem", { role: "alert" }, error.message));
  });

  function show(answer) {
    found = answer;
    left.seen(answer.seen_a);
    right.seen(answer.seen_b);
    left.rows = answer.a_from_b;
    right.rows = answer.b_from_a;
    if (answer.region) left.region(answer.region);
    drawHeat();
    answer.regions.forEach((region, number) => {
      left.disc(region.a, number + 1);
      right.disc(region.b, number + 1);
    });
    const back = format({ ...state, view: "pictures", b: null, at: null });
    const weighed = answer.scores.length > 1;
    const choice = index.spaces.filter((one) => one.answers && (!weighed || answer.scores.some((score) => score.fingerprint === one.fingerprint)));
    const label = (one) => (weighed ? `${one.short} ${answer.scores.find((score) => score.fingerprint === one.fingerprint).score.toFixed(3)}` : one.short);
    const link = (one) => format(weighed ? { ...state, at: state.by.find((name) => name === one.name || name === one.fingerprint) } : { ...state, by: [one.name], at: null });
    head.replaceChildren(
      h("h1", {}, `Score ${answer.score.toFixed(3)}`),
      h("p.count", {}, `by ${answer.space.name}${answer.region ? ", of the region" : ""}${weighed ? "; the search weighs its spaces together" : ""}`),
      h(
        "div.head-tools",
        {},
        choice.length > 1 && h("span.spaces", { role: "group", "aria-label": "Feature space" }, choice.map((one) => h("a.button", { href: link(one), "data-link": true, "aria-current": one.fingerprint === answer.space.fingerprint ? "true" : null }, label(one)))),
        h("label.check", {}, h("input", { type: "checkbox", checked: heat, onchange: (event) => ((heat = event.target.checked), drawHeat()) }), "Heat map"),
        h("a.button", { href: back, "data-link": true }, "Back to the neighbours"),
      ),
    );
    legend.replaceChildren(h("span", {}, `found least (${answer.low.toFixed(2)})`), h("canvas.scale", { width: 100, height: 1, "aria-hidden": "true" }), h("span", {}, `found best (${answer.high.toFixed(2)})`), h("p.quiet-text", {}, ["Colour: how well each part is rebuilt from the other picture.", answer.regions.length ? "Numbers: parts found best on the left, and where each looked on the right." : "", answer.region ? "The score is that of the parts in the box, rebuilt from the right picture." : ""].filter(Boolean).join(" ")));
    paint(legend.querySelector("canvas"), [Array.from({ length: 100 }, (_, i) => i)], 0, 99, () => 1);
    if (answer.attends) {
      follow(left, right, (place) => address("/attention", state.q, state.b) + place, answer.a_from_b);
      follow(right, left, (place) => address("/attention", state.b, state.q) + place, answer.b_from_a);
    } else words.textContent = "In this space the parts of one picture have no places in the other.";
    say(`Score ${answer.score.toFixed(3)} by ${answer.space.name}.`);
  }

  function drawHeat() {
    for (const one of [left, right]) {
      one.canvas.classList.toggle("off", !heat);
      one.element.classList.toggle("grey", heat);
      paint(one.canvas, one.rows, found.low, found.high, () => 0.62);
    }
  }

  const kept = new Map();
  /** A pointer, or the arrow keys, choose a part of `from`; `to` shows where it looks. */
  function follow(from, to, addressOf, agreement) {
    const [rows, columns] = [agreement.length, agreement[0].length];
    let now = null;
    const ask = debounce(15, async (row, column) => {
      const where = addressOf(`&row=${row}&column=${column}`);
      try {
        if (!kept.has(where)) kept.set(where, (await get(where, stop.signal)).rows);
      } catch {
        return; // the next move asks again
      }
      if (now?.[0] !== row || now?.[1] !== column) return;
      const shares = kept.get(where);
      const most = Math.max(...shares.flat());
      from.element.classList.add("asking");
      to.element.classList.add("answering");
      paint(to.attention, shares, 0, most, (share) => 0.88 * Math.sqrt(share));
      const peak = shares.flat().indexOf(most);
      words.textContent = `Row ${row + 1}, column ${column + 1} of ${rows} × ${columns}: agreement ${agreement[row][column].toFixed(2)}; it looks most at row ${Math.floor(peak / shares[0].length) + 1}, column ${(peak % shares[0].length) + 1} of the other.`;
    });
    const point = (row, column) => {
      if (now?.[0] === row && now?.[1] === column) return;
      now = [row, column];
      from.spot(row, column, rows, columns);
      ask(row, column);
    };
    const leave = () => {
      now = null;
      from.spot(null);
      from.element.classList.remove("asking");
      to.element.classList.remove("answering");
    };
    from.layer.addEventListener("pointermove", (event) => {
      const area = from.layer.getBoundingClientRect();
      const inside = (value, many) => Math.min(many - 1, Math.max(0, Math.floor(value * many)));
      point(inside((event.clientY - area.top) / area.height, rows), inside((event.clientX - area.left) / area.width, columns));
    });
    from.layer.addEventListener("pointerleave", leave);
    from.layer.addEventListener("blur", leave);
    from.layer.addEventListener("focus", () => point(Math.floor(rows / 2), Math.floor(columns / 2)));
    from.layer.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!step || !now) return;
      event.preventDefault();
      point(Math.min(rows - 1, Math.max(0, now[0] + step[0])), Math.min(columns - 1, Math.max(0, now[1] + step[1])));
    });
  }
  return { ready, close: () => stop.abort() };
}

/** One picture with its layers, which lie over what the network is shown of it. */
function side(title, picture) {
  const canvas = h("canvas.heat", { "aria-hidden": "true" });
  const attention = h("canvas.attention", { "aria-hidden": "true" });
  const spot = h("div.spot", { hidden: true });
  const layer = h("div.layer", { tabindex: "0", role: "application", "aria-label": `${title}: the arrow keys move over its parts, and the other picture shows where each looks` }, canvas, attention, spot);
  const image = h("img", { src: previewOf(picture), alt: title });
  const frame = h("div.frame", {}, image, layer);
  image.addEventListener("load", () => {
    const ratio = image.naturalWidth / image.naturalHeight;
    Object.assign(frame.style, { aspectRatio: ratio, width: `min(100%, ${62 * ratio}vh)` });
  });
  const name = h("figcaption", {}, title);
  const element = h("figure.side", {}, frame, name);
  if (typeof picture === "number") get(`/api/pictures/${picture}`).then((found) => (name.textContent = `${title}: ${found.name}`), () => {});
  let grid = null;
  return {
    element,
    canvas,
    attention,
    layer,
    rows: null,
    seen([x, y, width, height]) {
      Object.assign(layer.style, { left: `${100 * x}%`, top: `${100 * y}%`, width: `${100 * width}%`, height: `${100 * height}%` });
    },
    region([x, y, width, height]) {
      const box = h("div.spot.counted", {});
      Object.assign(box.style, { left: `${100 * x}%`, top: `${100 * y}%`, width: `${100 * width}%`, height: `${100 * height}%` });
      layer.append(box);
    },
    spot(row, column, rows, columns) {
      spot.hidden = row === null;
      if (row !== null) Object.assign(spot.style, { left: `${(100 * column) / columns}%`, top: `${(100 * row) / rows}%`, width: `${100 / columns}%`, height: `${100 / rows}%` });
    },
    disc([row, column], number) {
      grid ??= [this.rows.length, this.rows[0].length];
      const disc = h("span.disc", { "aria-hidden": "true" }, String(number));
      Object.assign(disc.style, { left: `${(100 * (column + 0.5)) / grid[1]}%`, top: `${(100 * (row + 0.5)) / grid[0]}%` });
      layer.append(disc);
    },
  };
}
