// A picture in a stage: it fits first; wheel, two fingers, double click and buttons zoom, a drag moves it, and where the
// whole of it is seen, a swipe asks for the next.

const MOST = 8; // pixels of the screen for one of the picture
const SWIPE = 60;

export class Zoom {
  /** onSwipe(1 or -1): the next or the one before; onZoom(share): pixels of the screen for one of the picture. */
  constructor(stage, picture, { onSwipe, onZoom }) {
    Object.assign(this, { stage, picture, onSwipe, onZoom, width: 1, height: 1 });
    this.pointers = new Map();
    this.reset();
    this.resizes = new ResizeObserver(() => this.reset());
    this.resizes.observe(stage);
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / (event.deltaMode ? 12 : 360)), this.at(event));
    }, { passive: false });
    stage.addEventListener("dblclick", (event) => (this.scale > 1 ? this.reset() : this.zoom(Math.max(2, 1 / this.fit), this.at(event))));
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => this.up(event, name === "pointerup"));
  }

  close() {
    this.resizes.disconnect();
  }

  /** Another picture, of so many pixels. */
  show(width, height) {
    Object.assign(this, { width, height });
    this.reset();
  }

  /** The whole picture. */
  reset() {
    Object.assign(this, { scale: 1, x: 0, y: 0 });
    this.draw();
  }

  /** fit: pixels of the screen for one of the picture, where the whole of it is seen. */
  draw() {
    const { clientWidth, clientHeight } = this.stage;
    this.fit = Math.min(MOST, clientWidth / this.width, clientHeight / this.height) || 1;
    this.scale = Math.min(Math.max(1, this.scale), Math.max(1, MOST / this.fit));
    const size = (side) => side * this.fit * this.scale;
    const room = (side, whole) => Math.max(0, (size(side) - whole) / 2);
    const kept = (value, most) => Math.min(most, Math.max(-most, value));
    this.x = kept(this.x, room(this.width, clientWidth));
    this.y = kept(this.y, room(this.height, clientHeight));
    this.picture.style.width = `${size(this.width)}px`;
    this.picture.style.height = `${size(this.height)}px`;
    this.picture.style.transform = `translate(${this.x}px, ${this.y}px)`;
    this.stage.classList.toggle("near", this.scale > 1);
    this.onZoom(this.fit * this.scale);
  }

  /** By a factor; the spot, from the middle of the stage, stays where it is. */
  zoom(factor, [x, y] = [0, 0]) {
    const before = this.scale;
    this.scale = Math.min(Math.max(1, before * factor), Math.max(1, MOST / this.fit));
    const by = this.scale / before;
    this.x = x - (x - this.x) * by;
    this.y = y - (y - this.y) * by;
    this.draw();
  }

  pan(x, y) {
    this.x += x;
    this.y += y;
    this.draw();
  }

  at(event) {
    const area = this.stage.getBoundingClientRect();
    return [event.clientX - area.left - area.width / 2, event.clientY - area.top - area.height / 2];
  }

  down(event) {
    if (event.button || event.target.closest("button")) return;
    this.stage.setPointerCapture(event.pointerId);
    const at = this.at(event);
    this.pointers.set(event.pointerId, at);
    this.from = this.pointers.size === 1 ? at : null; // two fingers do not swipe
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = this.at(event);
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    if (other) {
      const apart = (spot) => Math.hypot(spot[0] - other[0], spot[1] - other[1]) || 1;
      this.zoom(apart(now) / apart(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
    } else if (this.scale > 1) this.pan(now[0] - before[0], now[1] - before[1]);
  }

  up(event, lifted) {
    const now = this.pointers.get(event.pointerId);
    this.pointers.delete(event.pointerId);
    if (!lifted || !now || !this.from || this.scale > 1) return;
    const [x, y] = [now[0] - this.from[0], now[1] - this.from[1]];
    this.from = null;
    if (Math.abs(x) > SWIPE && Math.abs(x) > 2 * Math.abs(y)) this.onSwipe(x < 0 ? 1 : -1);
  }
}
