// The patches of the map, projected once. Drawing and search read all of them, which takes a few milliseconds.

/** Web Mercator (EPSG:3857) on the unit square: longitude and latitude in degrees to x (east) and y (south). */
export function project(longitude, latitude) {
  const sine = Math.sin((Math.max(-85, Math.min(85, latitude)) * Math.PI) / 180);
  return [longitude / 360 + 0.5, 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI)];
}

/** The inverse of project: [longitude, latitude] in degrees. */
export function unproject(x, y) {
  return [(x - 0.5) * 360, (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI];
}

export class Points {
  /** Patches of unknown location have NaN as longitude or latitude. */
  constructor(longitudes, latitudes) {
    this.size = longitudes.length;
    this.x = new Float64Array(this.size);
    this.y = new Float64Array(this.size);
    let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < this.size; i++) {
      const [x, y] = project(longitudes[i], latitudes[i]);
      this.x[i] = x;
      this.y[i] = y;
      if (Number.isNaN(x + y)) continue;
      x0 = Math.min(x0, x); x1 = Math.max(x1, x);
      y0 = Math.min(y0, y); y1 = Math.max(y1, y);
    }
    this.bounds = x0 <= x1 ? [x0, y0, x1, y1] : null;
  }

  /** Return the index of the point nearest to (x, y) within `radius`, or -1. */
  nearest(x, y, radius) {
    let best = radius * radius, found = -1;
    for (let i = 0; i < this.size; i++) {
      const east = this.x[i] - x, south = this.y[i] - y, square = east * east + south * south;
      if (square <= best) { best = square; found = i; }
    }
    return found;
  }

  /** Return [x, y] of a point on the unit square, or null if its location is unknown. */
  at(index) {
    return Number.isNaN(this.x[index] + this.y[index]) ? null : [this.x[index], this.y[index]];
  }
}
