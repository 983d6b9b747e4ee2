// A grid of tiles of which only those near the window exist, so that ten million are as smooth as 100.
//
// Every tile has the same size, and its place follows from its number. Tiles are known by their key: when the order
// changes they glide to their new place. How the list is scrolled that is higher than an element may be: see tall.js.

import { h } from "./dom.js";
import { Tall } from "./tall.js";

const GAP = 12;
const OVERSCAN = 1.0; // windows above and below
const REST_MS = 400; // without scrolling, where the browser does not tell that it has ended

export class Grid {
  /** count: tiles in all; item(number): what is known of one, or null; key(item): its identity; make(item, number): its
   * element; onNeed(first, last): these will be shown soon. */
  constructor({ label, count, item, key, make, update = () => {}, onNeed = () => {}, least = 176, caption = 62 }) {
    Object.assign(this, { count, item, key, make, update, onNeed, least, caption });
    this.element = h("ul.grid", { "aria-label": label });
    this.shown = new Map();
    this.active = 0;
    this.awaited = null; // a tile to focus as soon as what it shows is known
    this.columns = 1;
    this.at = 0;
    this.frame = 0;
    this.tall = new Tall();
    this.onScroll = () => {
      this.frame ||= requestAnimationFrame(() => this.draw());
      if ("onscrollend" in window) return;
      clearTimeout(this.rest);
      this.rest = setTimeout(this.onRest, REST_MS);
    };
    this.onRest = () => {
      if (this.tall.spare) this.goTo(this.top());
    };
    this.resizes = new ResizeObserver(() => this.layout());
    this.resizes.observe(this.element);
    addEventListener("scroll", this.onScroll, { passive: true });
    addEventListener("scrollend", this.onRest, { passive: true });
    this.element.addEventListener("focusin", (event) => {
      const tile = event.target.closest("[data-number]");
      if (!tile) return;
      this.awaited = null;
      this.activate(Number(tile.dataset.number));
    });
    this.element.addEventListener("keydown", (event) => this.onKey(event));
  }

  close() {
    this.resizes.disconnect();
    removeEventListener("scroll", this.onScroll);
    removeEventListener("scrollend", this.onRest);
    cancelAnimationFrame(this.frame);
    clearTimeout(this.rest);
  }

  /** Sizes anew, from the width that there is. What is at the top of the window stays there. */
  layout() {
    const width = this.element.clientWidth;
    if (!width) return;
    const before = { step: this.step, columns: this.columns, ...this.tall };
    const least = width < 420 ? Math.min(width, (140 * this.least) / 176) : this.least;
    this.columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
    this.side = Math.floor((width - GAP * (this.columns - 1)) / this.columns);
    this.step = this.side + this.caption + GAP;
    this.element.style.setProperty("--side", `${this.side}px`);
    this.element.style.setProperty("--caption", `${this.caption}px`);
    const top = this.top();
    this.tall.resize(Math.max(0, Math.ceil(this.count / this.columns) * this.step - GAP));
    this.element.style.height = `${this.tall.height}px`;
    if (this.at > 0 && this.at < before.total && (this.step !== before.step || this.columns !== before.columns)) {
      const number = Math.floor(this.at / before.step) * before.columns;
      this.goTo((Math.floor(number / this.columns) + (this.at / before.step % 1)) * this.step);
    } else if (before.spare || this.tall.spare) this.goTo(top);
    else this.draw();
  }

  /** Tiles at least this wide. */
  resize(least) {
    this.least = least;
    this.layout();
  }

  /** The element's pixel at the top of the window; below 0 where the element begins lower. */
  pixel() {
    return -this.element.getBoundingClientRect().top;
  }

  /** The same of the list. */
  top() {
    return this.tall.follow(this.pixel());
  }

  /** Scroll so that this pixel of the list is at the top of the window. */
  goTo(top) {
    const pixel = this.pixel();
    const place = this.tall.placeOf(top);
    if (Math.abs(place - pixel) >= 1) scrollBy(0, place - pixel);
    this.paint(this.tall.set(top, this.pixel()));
  }

  /** How far the page is scrolled, had it an element as high as the list. */
  scrolled() {
    return scrollY - this.pixel() + this.top();
  }

  /** Scroll as far as that. */
  scrollTo(pixels) {
    this.goTo(pixels - scrollY + this.pixel());
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
    const top = this.top();
    if (this.tall.atEnd(this.pixel())) this.goTo(top);
    else this.paint(top);
  }

  /** Show the tiles near the window, which begins at pixel `top` of the list. */
  paint(top) {
    this.at = top;
    const first = Math.max(0, Math.floor((top - innerHeight * OVERSCAN) / this.step)) * this.columns;
    const last = Math.min(this.count, Math.ceil((top + innerHeight * (1 + OVERSCAN)) / this.step) * this.columns);
    const keep = new Set();
    for (let number = first; number < last; number++) keep.add(this.place(number));
    const focused = this.element.contains(document.activeElement) ? document.activeElement.closest("[data-number]") : null;
    for (const [key, tile] of this.shown) {
      if (keep.has(key)) continue;
      if (tile === focused) {
        this.move(tile, Number(tile.dataset.number));
        continue;
      }
      const picture = tile.querySelector("img");
      if (picture && !picture.complete) picture.removeAttribute("src"); // stop loading what has scrolled away
      tile.remove();
      this.shown.delete(key);
    }
    this.sort(first, last);
    if (first < last) this.onNeed(first, last);
    if (this.awaited !== null) this.focusTile(this.awaited);
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
    this.move(tile, number);
    return key;
  }

  move(tile, number) {
    const x = (number % this.columns) * (this.side + GAP);
    const y = Math.floor(number / this.columns) * this.step - this.tall.shift;
    // A focused tile stays, however far away it is, and must not make the page higher.
    const inside = Math.min(this.tall.height + GAP - this.step, Math.max(-this.step, y));
    tile.style.transform = `translate(${x}px, ${inside}px)`;
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

  /** Focus the tile that was focused last, or the first in the window where that one is out of sight. */
  enter() {
    const [top, low] = [this.top() + header(), this.top() + innerHeight];
    const y = Math.floor(this.active / this.columns) * this.step;
    const first = Math.max(0, Math.ceil(top / this.step)) * this.columns;
    this.focus(y >= top && y < low ? this.active : Math.min(first, this.count - 1));
  }

  /** Bring a tile into the window and focus it. */
  focus(number) {
    const top = this.top();
    const y = Math.floor(number / this.columns) * this.step;
    if (y - top < header() + GAP) this.goTo(y - header() - GAP);
    else if (y - top + this.step > innerHeight) this.goTo(y + this.step + GAP - innerHeight);
    this.activate(number);
    this.draw();
    this.focusTile(number);
  }

  /** Now, or as soon as what it shows has come. */
  focusTile(number) {
    const link = this.tile(number)?.querySelector("a");
    this.awaited = link ? null : number;
    link?.focus({ preventScroll: true });
  }
}

const header = () => document.querySelector(".bar")?.offsetHeight ?? 0;
