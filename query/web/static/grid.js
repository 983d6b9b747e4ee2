// A grid of tiles of which only those near the window exist, so that 100,000 are as smooth as 100.
//
// Every tile has the same size, and its place follows from its number. Tiles are known by their key: when the order
// changes they glide to their new place.

import { h } from "./dom.js";

const GAP = 12;
const OVERSCAN = 1.0; // windows above and below

export class Grid {
  /** count: tiles in all; item(number): what is known of one, or null; key(item): its identity; make(item, number): its
   * element; onNeed(first, last): these will be shown soon. */
  constructor({ label, count, item, key, make, update = () => {}, onNeed = () => {}, least = 176, caption = 62 }) {
    Object.assign(this, { count, item, key, make, update, onNeed, least, caption });
    this.element = h("ul.grid", { "aria-label": label });
    this.shown = new Map();
    this.active = 0;
    this.columns = 1;
    this.frame = 0;
    this.onScroll = () => {
      this.frame ||= requestAnimationFrame(() => this.draw());
    };
    this.resizes = new ResizeObserver(() => this.layout());
    this.resizes.observe(this.element);
    addEventListener("scroll", this.onScroll, { passive: true });
    this.element.addEventListener("focusin", (event) => {
      const tile = event.target.closest("[data-number]");
      if (tile) this.activate(Number(tile.dataset.number));
    });
    this.element.addEventListener("keydown", (event) => this.onKey(event));
  }

  close() {
    this.resizes.disconnect();
    removeEventListener("scroll", this.onScroll);
    cancelAnimationFrame(this.frame);
  }

  /** Sizes anew, from the width that there is. */
  layout() {
    const width = this.element.clientWidth;
    if (!width) return;
    const least = width < 420 ? 140 : this.least;
    this.columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
    this.side = Math.floor((width - GAP * (this.columns - 1)) / this.columns);
    this.step = this.side + this.caption + GAP;
    this.element.style.setProperty("--side", `${this.side}px`);
    this.element.style.setProperty("--caption", `${this.caption}px`);
    this.element.style.height = `${Math.max(0, Math.ceil(this.count / this.columns) * this.step - GAP)}px`;
    this.draw();
  }

  /** Other contents or another order. */
  refresh(count = this.count) {
    this.count = count;
    this.active = Math.min(this.active, Math.max(0, count - 1));
    this.layout();
  }

  draw() {
    this.frame = 0;
    if (!this.step || !this.element.isConnected) return;
    const top = -this.element.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((top - innerHeight * OVERSCAN) / this.step)) * this.columns;
    const last = Math.min(this.count, Math.ceil((top + innerHeight * (1 + OVERSCAN)) / this.step) * this.columns);
    const keep = new Set();
    for (let number = first; number < last; number++) keep.add(this.place(number));
    const focused = this.element.contains(document.activeElement) ? document.activeElement.closest("[data-number]") : null;
    for (const [key, tile] of this.shown) {
      if (keep.has(key) || tile === focused) continue;
      const picture = tile.querySelector("img");
      if (picture && !picture.complete) picture.removeAttribute("src"); // stop loading what has scrolled away
      tile.remove();
      this.shown.delete(key);
    }
    this.sort(first, last);
    if (first < last) this.onNeed(first, last);
  }

  /** The elements in the order of their numbers, for those who hear or tab through the page. */
  sort(first, last) {
    let next = this.element.firstElementChild;
    for (let number = first; number < last; number++) {
      const tile = this.tile(number);
      if (tile === next) next = next.nextElementSibling;
      else if (!tile.contains(document.activeElement)) this.element.insertBefore(tile, next);
    }
  }

  place(number) {
    const item = this.item(number);
    const key = item ? this.key(item) : `?${number}`;
    let tile = this.shown.get(key);
    if (!tile) {
      tile = item ? this.make(item, number) : h("li.tile.empty", { "aria-hidden": "true" }, h("div.shot"));
      this.shown.set(key, tile);
      this.element.append(tile);
    } else if (item) this.update(tile, item, number);
    tile.dataset.number = number;
    if (item) {
      tile.setAttribute("aria-posinset", number + 1);
      tile.setAttribute("aria-setsize", this.count);
      this.reachable(tile, number === this.active);
    }
    const x = (number % this.columns) * (this.side + GAP);
    const y = Math.floor(number / this.columns) * this.step;
    tile.style.transform = `translate(${x}px, ${y}px)`;
    return key;
  }

  reachable(tile, is) {
    tile.querySelectorAll("a, button").forEach((part) => (part.tabIndex = is ? 0 : -1));
  }

  activate(number) {
    if (number === this.active) return;
    const before = this.tile(this.active);
    if (before) this.reachable(before, false);
    this.active = number;
    const now = this.tile(number);
    if (now) this.reachable(now, true);
  }

  tile(number) {
    const item = this.item(number);
    return this.shown.get(item ? this.key(item) : `?${number}`);
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns };
    let to = null;
    if (event.key in steps) to = this.active + steps[event.key];
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = this.count - 1;
    else if (event.key === "PageDown" || event.key === "PageUp") {
      const rows = Math.max(1, Math.floor(innerHeight / this.step));
      to = Math.min(this.count - 1, Math.max(0, this.active + (event.key === "PageDown" ? 1 : -1) * rows * this.columns));
    }
    if (to === null) return;
    if (to < 0 || to >= this.count) {
      this.onLeave?.(event, to < 0 ? -1 : 1);
      return;
    }
    event.preventDefault();
    this.focus(to);
  }

  /** Bring a tile into the window and focus it. */
  focus(number) {
    const head = document.querySelector(".bar")?.offsetHeight ?? 0;
    const top = this.element.getBoundingClientRect().top + Math.floor(number / this.columns) * this.step;
    if (top < head + GAP) scrollBy(0, top - head - GAP);
    else if (top + this.step > innerHeight) scrollBy(0, top + this.step - innerHeight + GAP);
    this.activate(number);
    this.draw();
    this.tile(number)?.querySelector("a")?.focus({ preventScroll: true });
  }
}
