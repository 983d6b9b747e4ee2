// A list taller than an element may be. Browsers end an element at some height (Chrome at 33.5 million pixels of the
// screen, Firefox at 17.8 million), which a grid of a million pictures passes.
//
// The element then has a height that every browser takes, and the list is longer: what the window shows begins at a pixel
// of the list, which is the element's pixel plus a shift. By wheel, finger or key the window goes through the list pixel
// by pixel: the shift stays. A move of the scroll bar, which is longer than theirs, gets the shift of its place: none at
// the top, all that the list is longer at the bottom, and between the two in proportion. Once scrolling has ended, the
// element is scrolled to where it belongs, with the shift that leaves the window as it is.

const HIGHEST = 8e6; // pixels of the screen
const EDGE = 1 / 40; // of the height, at both ends: there the shift is constant, which leaves room to scroll on
const MARGIN = 8; // windows before such an end of the element, where that is not waited for

export class Tall {
  constructor() {
    this.total = 0; // pixels of the list
    this.height = 0; // pixels of the element
    this.spare = 0; // pixels that the list is longer
    this.shift = 0;
    this.last = 0;
  }

  /** The list has another length. */
  resize(total) {
    this.total = total;
    this.height = Math.min(total, Math.floor(HIGHEST / Math.max(1, devicePixelRatio)));
    this.spare = total - this.height;
    this.edge = this.height * EDGE;
    this.shift = Math.min(this.shift, this.spare);
  }

  /** The shift that belongs to a pixel of the element. */
  shiftAt(pixel) {
    if (!this.spare) return 0;
    return this.spare * Math.min(1, Math.max(0, (pixel - this.edge) / (this.height - 2 * this.edge)));
  }

  /** The pixel of the element that belongs to a pixel of the list. */
  placeOf(top) {
    if (!this.spare || top <= this.edge) return top;
    if (top >= this.total - this.edge) return top - this.spare;
    const slope = this.spare / (this.height - 2 * this.edge);
    return (top + slope * this.edge) / (1 + slope);
  }

  /** Where the list is after the window was scrolled to a pixel of the element. */
  follow(pixel) {
    const bar = this.height / innerHeight; // what a pixel of the scroll bar is worth
    if (Math.abs(pixel - this.last) > Math.max(innerHeight, bar / 2)) this.shift = this.shiftAt(pixel);
    this.last = pixel;
    return pixel + this.shift;
  }

  /** The same after it was scrolled to `top` on purpose, which brought the element to this pixel. */
  set(top, pixel) {
    this.shift = Math.min(this.spare, Math.max(0, top - pixel));
    this.last = pixel;
    return pixel + this.shift;
  }

  /** Whether scrolling would soon run into an end of the element that is not one of the list. */
  atEnd(pixel) {
    const [above, below] = [this.shift, this.spare - this.shift];
    const margin = MARGIN * innerHeight;
    return (above >= 1 && pixel < margin) || (below >= 1 && pixel > this.height - innerHeight - margin);
  }
}
