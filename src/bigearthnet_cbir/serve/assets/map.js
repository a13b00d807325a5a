// The map: country outlines, one canvas with dots drawn as pixels, and an overlay for results and the box.

import { Points, project, unproject } from "./points.js";

const PATCH = 1200 / 40075016.7; // a patch's 1.2 km on the unit square, at the equator
const NEAR = 9; // pixels from the pointer at which a dot is meant
const EUROPE = [...project(-11, 69), ...project(33, 36)];

export class DotMap {
  /** `box` is the element that the canvases fill; `events` has hover(index), pick(index), boxed([w, s, e, n]). */
  constructor(box, events) {
    this.box = box;
    this.events = events;
    [this.land, this.dots, this.over] = ["land", "dots", "over"].map((name) => {
      const canvas = document.createElement("canvas");
      canvas.className = name;
      canvas.setAttribute("aria-hidden", "true");
      box.append(canvas);
      return canvas.getContext("2d");
    });
    this.points = new Points(new Float32Array(0), new Float32Array(0));
    this.colours = new Uint8Array(0);
    this.palette = new Uint32Array([0xff888888]);
    this.results = [];
    this.hovered = -1;
    this.filterBox = null;
    this.drawn = null; // the box under the pointer: [x, y, x, y] in pixels
    this.boxMode = false;
    this.view = { x: 0, y: 0, scale: 1 }; // unit-square position of the upper left corner, pixels per unit
    new ResizeObserver(() => this.resize()).observe(box);
    this.resize();
    this.fit(EUROPE);
  }

  setOutlines(outlines) {
    const path = new Path2D();
    for (const rings of Object.values(outlines.countries)) {
      for (const ring of rings) {
        let [lon, lat] = ring;
        path.moveTo(...project(lon / outlines.units_per_degree, lat / outlines.units_per_degree));
        for (let i = 2; i < ring.length; i += 2) {
          lon += ring[i]; lat += ring[i + 1];
          path.lineTo(...project(lon / outlines.units_per_degree, lat / outlines.units_per_degree));
        }
        path.closePath();
      }
    }
    this.path = path;
    this.draw();
  }

  setPoints(longitudes, latitudes) {
    this.points = new Points(longitudes, latitudes);
    this.colours = new Uint8Array(this.points.placed);
    this.home();
  }

  /** `colours` has a palette index for every patch; the palette holds 0xAABBGGRR. Indices < `low` are drawn first. */
  setColours(colours, palette, low = 1) {
    this.palette = palette;
    this.low = low;
    for (let i = 0; i < this.colours.length; i++) this.colours[i] = colours[this.points.order[i]];
    this.draw();
  }

  /** `results`: {index, text, kind} with kind one of query, result, more, less. */
  setResults(results) { this.results = results; this.drawOver(); }
  setHovered(index) { if (index !== this.hovered) { this.hovered = index; this.drawOver(); } }
  setFilterBox(box) { this.filterBox = box; this.drawOver(); }

  home() { this.fit(this.points.bounds ?? EUROPE); }

  /** Show the rectangle [x, y, x, y] of the unit square, with a margin. */
  fit([x0, y0, x1, y1]) {
    const [left, top, right, bottom] = this.width > 500 ? [40, 30, 80, 70] : [20, 20, 70, 50]; // beside the controls
    const wide = Math.max(this.width - left - right, 50), high = Math.max(this.height - top - bottom, 50);
    const scale = Math.min(wide / Math.max(x1 - x0, 1e-3), high / Math.max(y1 - y0, 1e-3));
    this.view = { x: (x0 + x1) / 2 - (left + wide / 2) / scale, y: (y0 + y1) / 2 - (top + high / 2) / scale, scale };
    this.draw();
  }

  fitTo(indices) {
    const places = indices.map((index) => this.points.at(index)).filter(Boolean);
    if (!places.length) return;
    const xs = places.map((p) => p[0]), ys = places.map((p) => p[1]);
    this.fit([Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)]);
  }

  /** Zoom by a factor around the pixel (px, py). */
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const scale = Math.max(this.width / 2, Math.min(4e6, this.view.scale * factor));
    this.view.x += px / this.view.scale - px / scale;
    this.view.y += py / this.view.scale - py / scale;
    this.view.scale = scale;
    this.draw();
  }

  pan(dx, dy) {
    this.view.x = Math.max(0, Math.min(1, this.view.x - dx / this.view.scale));
    this.view.y = Math.max(0, Math.min(1, this.view.y - dy / this.view.scale));
    this.draw();
  }

  resize() {
    const before = this.width;
    this.width = Math.max(this.box.clientWidth, 1);
    this.height = Math.max(this.box.clientHeight, 1);
    this.ratio = Math.min(window.devicePixelRatio || 1, 2);
    for (const context of [this.land, this.dots, this.over]) {
      context.canvas.width = Math.round(this.width * this.ratio);
      context.canvas.height = Math.round(this.height * this.ratio);
    }
    const { width, height } = this.dots.canvas;
    this.image = this.dots.createImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    if (before > 1 && this.view) this.view.scale *= this.width / before;
    this.draw();
  }

  toPixels([x, y]) { return [(x - this.view.x) * this.view.scale, (y - this.view.y) * this.view.scale]; }
  toUnit(px, py) { return [this.view.x + px / this.view.scale, this.view.y + py / this.view.scale]; }
  indexAt(px, py) { return this.points.nearest(...this.toUnit(px, py), Math.max(NEAR, this.dotSize() / 2) / this.view.scale); }

  /** Draw at the next frame, once for any number of calls. */
  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.drawLand();
      this.drawDots();
      this.drawOver();
    });
  }

  drawLand() {
    const style = getComputedStyle(this.box), { canvas } = this.land, k = this.view.scale * this.ratio;
    this.land.setTransform(1, 0, 0, 1, 0, 0);
    this.land.fillStyle = style.getPropertyValue("--sea");
    this.land.fillRect(0, 0, canvas.width, canvas.height);
    if (!this.path) return;
    this.land.setTransform(k, 0, 0, k, -this.view.x * k, -this.view.y * k);
    this.land.fillStyle = style.getPropertyValue("--land");
    this.land.fill(this.path, "evenodd");
    this.land.lineWidth = 1 / this.view.scale;
    this.land.strokeStyle = style.getPropertyValue("--border");
    this.land.stroke(this.path);
  }

  /** Return the size of a dot in pixels: small for dense archives, but never smaller than the patch. */
  dotSize() {
    const share = Math.sqrt((this.width * this.height) / Math.max(this.points.placed, 1));
    const patch = PATCH * this.view.scale * 1.6; // 1 / cos(latitude) in the middle of Europe
    return Math.min(24, Math.max(1.5, Math.min(6, share / 5), patch * 0.9));
  }

  drawDots() {
    const { pixels, palette, colours, points } = this, { x, y } = points, { width, height } = this.dots.canvas;
    const k = this.view.scale * this.ratio, side = Math.max(1, Math.round(this.dotSize() * this.ratio)), half = side >> 1;
    const left = this.view.x, top = this.view.y, margin = side / k;
    const corner = side > 3 ? 1 : 0; // larger dots have their corners cut
    pixels.fill(0);
    const write = (first, stop, low) => {
      for (let i = first; i < stop; i++) {
        if (colours[i] < this.low !== low) continue;
        const colour = palette[colours[i]];
        const px = ((x[i] - left) * k - half) | 0, py = ((y[i] - top) * k - half) | 0;
        if (px < 0 || py < 0 || px + side > width || py + side > height) continue;
        for (let row = 0; row < side; row++) {
          const cut = row === 0 || row === side - 1 ? corner : 0;
          const at = (py + row) * width + px;
          for (let column = cut; column < side - cut; column++) pixels[at + column] = colour;
        }
      }
    };
    const edge = [left - margin, top - margin, left + width / k + margin, top + height / k + margin];
    for (const low of this.low ? [true, false] : [false]) points.runs(...edge, (a, b) => write(a, b, low));
    this.dots.putImageData(this.image, 0, 0);
  }

  drawOver() {
    const style = getComputedStyle(this.box), pen = this.over;
    pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    const accent = style.getPropertyValue("--accent"), card = style.getPropertyValue("--card");
    if (this.filterBox) {
      const [w, s, e, n] = this.filterBox;
      this._frame(pen, [...this.toPixels(project(w, n)), ...this.toPixels(project(e, s))], accent);
    }
    if (this.drawn) this._frame(pen, this.drawn, accent);
    const colours = { query: accent, result: style.getPropertyValue("--ring"), more: accent, less: style.getPropertyValue("--warn") };
    for (const result of [...this.results].reverse()) {
      this._ring(pen, result, colours[result.kind], card, result.index === this.hovered);
    }
    const hovered = this.results.find((result) => result.index === this.hovered);
    if (hovered) this._ring(pen, hovered, colours[hovered.kind], card, true);
    else if (this.hovered >= 0) this._ring(pen, { index: this.hovered, kind: "result" }, style.getPropertyValue("--ink"), card, true);
  }

  _frame(pen, [x0, y0, x1, y1], colour) {
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.setLineDash([6, 4]);
    pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    pen.setLineDash([]);
    pen.globalAlpha = 0.08;
    pen.fillStyle = colour;
    pen.fillRect(x0, y0, x1 - x0, y1 - y0);
    pen.globalAlpha = 1;
  }

  _ring(pen, { index, text, kind }, colour, card, large) {
    const place = this.points.at(index);
    if (!place) return;
    const [x, y] = this.toPixels(place), radius = (kind === "query" ? 10 : text ? 9 : 6) + (large ? 3 : 0);
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.lineWidth = large ? 3 : 2;
    pen.fillStyle = kind === "query" || large ? colour : card;
    pen.strokeStyle = kind === "query" || large ? card : colour;
    if (text || kind === "query") pen.fill();
    pen.stroke();
    if (!text) return;
    pen.fillStyle = kind === "query" || large ? card : colour;
    pen.font = `600 ${text.length > 2 ? 8 : 10}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillText(text, x, y + 0.5);
  }

  /** Return the [west, south, east, north] of a rectangle in pixels. */
  toDegrees([x0, y0, x1, y1]) {
    const [w, n] = unproject(...this.toUnit(Math.min(x0, x1), Math.min(y0, y1)));
    const [e, s] = unproject(...this.toUnit(Math.max(x0, x1), Math.max(y0, y1)));
    return [w, s, e, n].map((value) => Math.round(value * 1e4) / 1e4);
  }
}
