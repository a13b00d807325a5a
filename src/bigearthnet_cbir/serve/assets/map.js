// The map: country outlines as SVG, dots as pixels of a canvas, rings around results and frames of boxes as elements.

import { make } from "./dom.js";
import { Points, project, unproject } from "./points.js";

const PATCH = 1200 / 40075016.7; // a patch's 1.2 km on the unit square, at the equator
const NEAR = 9; // pixels from the pointer at which a dot is meant
const EUROPE = [...project(-11, 69), ...project(33, 36)];
const LAYERS = ["<svg aria-hidden='true'><path></path></svg>", "<canvas aria-hidden='true'></canvas>", "<div aria-hidden='true'></div>"];

const between = (low, value, high) => Math.max(low, Math.min(high, value));

export class DotMap {
  /** `box` is the element that the map fills; `events` has hover(index), pick(index), boxed([w, s, e, n]). */
  constructor(box, events) {
    this.box = box;
    this.events = events;
    box.innerHTML = LAYERS.join("");
    [this.land, this.canvas, this.over] = box.children;
    this.points = new Points([], []);
    this.colours = this.palette = [];
    this.results = [];
    this.hovered = -1;
    this.filterBox = null; // [w, s, e, n] in degrees
    this.drawn = null; // the box that the pointer draws: [x, y, x, y] in pixels
    this.boxMode = false;
    new ResizeObserver(() => this.resize()).observe(box);
    this.resize();
    this.home();
  }

  setOutlines({ countries, units_per_degree: units }) {
    const outline = (ring) => {
      const corners = [];
      let lon = 0, lat = 0;
      for (let i = 0; i < ring.length; i += 2) {
        lon += ring[i];
        lat += ring[i + 1];
        corners.push(project(lon / units, lat / units));
      }
      return `M${corners.join("L")}Z`;
    };
    this.land.firstChild.setAttribute("d", Object.values(countries).flat().map(outline).join(""));
  }

  setPoints(longitudes, latitudes) {
    this.points = new Points(longitudes, latitudes);
    this.home();
  }

  /** `colours` has a palette index for every patch; the palette holds 0xAABBGGRR. Dots of index 0 are below the others. */
  setColours(colours, palette) {
    this.colours = colours;
    this.palette = palette;
    this.draw();
  }

  /** `results`: {index, text, kind} with kind one of query, result, more, less. */
  setResults(results) { this.results = results; this.drawOver(); }
  setHovered(index) { if (index !== this.hovered) { this.hovered = index; this.drawOver(); } }
  setFilterBox(box) { this.filterBox = box; this.drawOver(); }
  setDrawn(box) { this.drawn = box; this.drawOver(); }

  /** Set the unit-square position of the upper left corner, and the pixels per unit. */
  show(x, y, scale) {
    this.view = { x: between(0, x, 1), y: between(0, y, 1), scale: between(this.width / 2, scale, 4e6) };
    this.draw();
  }

  /** Show the rectangle [x, y, x, y] of the unit square, with a margin. */
  fit([x0, y0, x1, y1]) {
    const [left, top, right, bottom] = this.width > 500 ? [40, 30, 80, 70] : [20, 20, 70, 50]; // beside the controls
    const wide = Math.max(this.width - left - right, 50), high = Math.max(this.height - top - bottom, 50);
    const scale = Math.min(wide / Math.max(x1 - x0, 1e-3), high / Math.max(y1 - y0, 1e-3));
    this.show((x0 + x1) / 2 - (left + wide / 2) / scale, (y0 + y1) / 2 - (top + high / 2) / scale, scale);
  }

  home() { this.fit(this.points.bounds ?? EUROPE); }

  fitTo(indices) {
    const places = indices.map((index) => this.points.at(index)).filter(Boolean);
    if (!places.length) return;
    const xs = places.map((p) => p[0]), ys = places.map((p) => p[1]);
    this.fit([Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)]);
  }

  /** Zoom by a factor around the pixel (px, py). */
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const [x, y] = this.toUnit(px, py), scale = between(this.width / 2, this.view.scale * factor, 4e6);
    this.show(x - px / scale, y - py / scale, scale);
  }

  pan(dx, dy) { this.show(...this.toUnit(-dx, -dy), this.view.scale); }

  resize() {
    const before = this.width;
    this.width = Math.max(this.box.clientWidth, 1);
    this.height = Math.max(this.box.clientHeight, 1);
    this.ratio = Math.min(window.devicePixelRatio || 1, 2);
    this.image = new ImageData(Math.round(this.width * this.ratio), Math.round(this.height * this.ratio));
    this.pixels = new Uint32Array(this.image.data.buffer);
    Object.assign(this.canvas, { width: this.image.width, height: this.image.height });
    if (this.view) this.show(this.view.x, this.view.y, (this.view.scale * this.width) / before);
  }

  toPixels([x, y]) { return [(x - this.view.x) * this.view.scale, (y - this.view.y) * this.view.scale]; }
  toUnit(px, py) { return [this.view.x + px / this.view.scale, this.view.y + py / this.view.scale]; }

  /** Return the [west, south, east, north] of a rectangle in pixels. */
  toDegrees([x0, y0, x1, y1]) {
    const [w, n] = unproject(...this.toUnit(Math.min(x0, x1), Math.min(y0, y1)));
    const [e, s] = unproject(...this.toUnit(Math.max(x0, x1), Math.max(y0, y1)));
    return [w, s, e, n].map((value) => Math.round(value * 1e4) / 1e4);
  }

  /** Return the index of the dot nearest to a pixel, within a radius in pixels, or -1. */
  indexAt(px, py, radius = Math.max(NEAR, this.dotSize() / 2)) {
    return this.points.nearest(...this.toUnit(px, py), radius / this.view.scale);
  }

  /** Return the size of a dot in pixels: small for dense archives, but never smaller than the patch. */
  dotSize() {
    const share = Math.sqrt((this.width * this.height) / Math.max(this.points.size, 1));
    const patch = PATCH * this.view.scale * 1.6; // 1 / cos(latitude) in the middle of Europe
    return Math.min(24, Math.max(1.5, Math.min(6, share / 5), patch * 0.9));
  }

  /** Draw at the next frame, once for any number of calls. */
  draw() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      const { x, y, scale } = this.view;
      this.land.setAttribute("viewBox", `${x} ${y} ${this.width / scale} ${this.height / scale}`);
      this.drawDots();
      this.drawOver();
    });
  }

  drawDots() {
    const { image, pixels, palette, colours, points: { x, y, size }, view } = this, { width } = image;
    const k = view.scale * this.ratio, side = Math.max(1, Math.round(this.dotSize() * this.ratio)), half = side >> 1;
    const right = width - side, bottom = image.height - side;
    const corner = side > 3 ? 1 : 0; // larger dots have their corners cut
    pixels.fill(0);
    for (const below of [true, false]) {
      for (let i = 0; i < size; i++) {
        if ((colours[i] === 0) !== below) continue;
        const px = (x[i] - view.x) * k - half, py = (y[i] - view.y) * k - half;
        if (!(px >= 0 && py >= 0 && px <= right && py <= bottom)) continue; // also true for NaN
        const colour = palette[colours[i]], first = (py | 0) * width + (px | 0);
        for (let row = 0; row < side; row++) {
          const cut = row === 0 || row === side - 1 ? corner : 0;
          for (let column = cut; column < side - cut; column++) pixels[first + row * width + column] = colour;
        }
      }
    }
    this.canvas.getContext("2d").putImageData(image, 0, 0);
  }

  drawOver() {
    const ring = ({ index, text, kind }) => {
      const place = this.points.at(index);
      if (!place) return "";
      const node = make("span", { className: `ring ${kind} ${index === this.hovered ? "hovered" : ""}`, text });
      node.style.translate = this.toPixels(place).map((value) => `${value}px`).join(" ");
      return node;
    };
    const frame = ([x0, y0, x1, y1]) => {
      const node = make("div", { className: "frame" }), [wide, high] = [Math.abs(x1 - x0), Math.abs(y1 - y0)];
      Object.assign(node.style, { left: `${Math.min(x0, x1)}px`, top: `${Math.min(y0, y1)}px`, width: `${wide}px`, height: `${high}px` });
      return node;
    };
    const [w, s, e, n] = this.filterBox ?? [];
    const boxes = [this.drawn, this.filterBox && [...this.toPixels(project(w, n)), ...this.toPixels(project(e, s))]];
    const isResult = this.results.some(({ index }) => index === this.hovered);
    const rings = isResult ? this.results : [{ index: this.hovered, text: "", kind: "other" }, ...this.results];
    this.over.replaceChildren(...boxes.filter(Boolean).map(frame), ...rings.map(ring).reverse());
  }
}
