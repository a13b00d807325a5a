// The patches of the map: projected once and sorted into a grid for spatial search.

const CELLS = 512;

/** Web Mercator (EPSG:3857) on the unit square: longitude and latitude in degrees to x (east) and y (south). */
export function project(longitude, latitude) {
  const sine = Math.sin((Math.max(-85, Math.min(85, latitude)) * Math.PI) / 180);
  return [longitude / 360 + 0.5, 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI)];
}

/** The inverse of project: [longitude, latitude] in degrees. */
export function unproject(x, y) {
  return [(x - 0.5) * 360, (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI];
}

/** Points in a grid of cells. A row of cells is one range of `order`, so the visible points are a few ranges. */
export class Points {
  /** Patches of unknown location (NaN) are left out. */
  constructor(longitudes, latitudes) {
    const size = longitudes.length;
    const px = new Float64Array(size), py = new Float64Array(size);
    let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < size; i++) {
      if (Number.isNaN(longitudes[i]) || Number.isNaN(latitudes[i])) { px[i] = NaN; continue; }
      const sine = Math.sin((latitudes[i] * Math.PI) / 180);
      const x = (px[i] = longitudes[i] / 360 + 0.5);
      const y = (py[i] = 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI));
      if (x < x0) x0 = x;
      if (x > x1) x1 = x;
      if (y < y0) y0 = y;
      if (y > y1) y1 = y;
    }
    this.bounds = x0 <= x1 ? [x0, y0, x1, y1] : null;
    this.cell = Math.max(x1 - x0, y1 - y0, 1e-9) / (CELLS - 1e-6) || 1;
    this._sort(px, py);
  }

  _sort(px, py) {
    const size = px.length, cells = new Int32Array(size);
    this.starts = new Int32Array(CELLS * CELLS + 1);
    for (let i = 0; i < size; i++) {
      cells[i] = Number.isNaN(px[i]) ? -1 : this._row(py[i]) * CELLS + this._column(px[i]);
      if (cells[i] >= 0) this.starts[cells[i] + 1]++;
    }
    for (let c = 0; c < CELLS * CELLS; c++) this.starts[c + 1] += this.starts[c];
    this.placed = this.starts[CELLS * CELLS];
    const next = this.starts.slice();
    this.order = new Int32Array(this.placed);
    this.x = new Float64Array(this.placed);
    this.y = new Float64Array(this.placed);
    this.slot = new Int32Array(size).fill(-1);
    for (let i = 0; i < size; i++) {
      if (cells[i] < 0) continue;
      const to = next[cells[i]]++;
      this.order[to] = i; this.x[to] = px[i]; this.y[to] = py[i]; this.slot[i] = to;
    }
  }

  _column(x) { return Math.max(0, Math.min(CELLS - 1, Math.floor((x - this.bounds[0]) / this.cell))); }
  _row(y) { return Math.max(0, Math.min(CELLS - 1, Math.floor((y - this.bounds[1]) / this.cell))); }

  /** Call visit(first, stop) for every range of sorted points whose cells intersect the rectangle. */
  runs(x0, y0, x1, y1, visit) {
    if (!this.bounds || x1 < this.bounds[0] || x0 > this.bounds[2] || y1 < this.bounds[1] || y0 > this.bounds[3]) return;
    const left = this._column(x0), right = this._column(x1), bottom = this._row(y1);
    for (let row = this._row(y0); row <= bottom; row++) {
      const first = this.starts[row * CELLS + left], stop = this.starts[row * CELLS + right + 1];
      if (first < stop) visit(first, stop);
    }
  }

  /** Return the index of the point nearest to (x, y) within `radius`, or -1. */
  nearest(x, y, radius) {
    let best = radius * radius, found = -1;
    this.runs(x - radius, y - radius, x + radius, y + radius, (first, stop) => {
      for (let i = first; i < stop; i++) {
        const d = (this.x[i] - x) ** 2 + (this.y[i] - y) ** 2;
        if (d <= best) { best = d; found = this.order[i]; }
      }
    });
    return found;
  }

  /** Return [x, y] of a point on the unit square, or null if its location is unknown. */
  at(index) {
    const slot = this.slot[index] ?? -1;
    return slot < 0 ? null : [this.x[slot], this.y[slot]];
  }
}
