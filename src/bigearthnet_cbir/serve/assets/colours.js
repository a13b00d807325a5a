// The colour of each dot: by label, split or distance. Patches that fail the filters are faint.

const CLASSES = [
  "#d1495b", "#8d5a97", "#e3b23c", "#c98a2b", "#b5cf6b", "#d9c27e", "#a3a847", "#7d9d3c", "#2f9e58", "#14694a",
  "#4c8c5c", "#9ccc8f", "#b07aa1", "#8f9d5b", "#e8d5b0", "#6fb1c4", "#8bb8e8", "#2a78c8", "#1d4fa0",
];
const SPLITS = { train: "#1b6ca8", val: "#c2570c", test: "#a3195b" };
const OTHER = "#8a9499";
const NEAR = [250, 200, 60], MIDDLE = [32, 144, 140], FAR = [68, 40, 110];

const packed = (hex, alpha = 255) => {
  const value = parseInt(hex.slice(1), 16);
  return ((alpha << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
};
const hex = (rgb) => `#${rgb.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("")}`;
const mix = (a, b, share) => a.map((part, i) => part + (b[i] - part) * share);
const ramp = (share) => (share < 0.5 ? mix(NEAR, MIDDLE, share * 2) : mix(MIDDLE, FAR, share * 2 - 1));

/** Return a function index -> whether a patch passes the filters on catalogue columns; null without filters. */
export function passes({ columns, values, class_names }, filters) {
  const bits = (names) => names.reduce((sum, name) => sum | (1 << class_names.indexOf(name)), 0) >>> 0;
  const codes = (name, words) => new Set(words.map((word) => values[name].indexOf(word)));
  const day = (text) => Date.parse(text) / 864e5;
  const tests = [], { labels, longitude, latitude } = columns;
  const all = bits(filters.labels), any = bits(filters.any_labels), none = bits(filters.without_labels);
  if (all) tests.push((i) => (labels[i] & all) >>> 0 === all);
  if (any) tests.push((i) => (labels[i] & any) !== 0);
  if (none) tests.push((i) => (labels[i] & none) === 0);
  for (const [name, words] of [["country", filters.countries], ["season", filters.seasons], ["split", filters.splits]]) {
    const wanted = codes(name, words), column = columns[name];
    if (words.length) tests.push((i) => wanted.has(column[i]));
  }
  if (filters.since) { const first = day(filters.since); tests.push((i) => columns.day[i] >= first && columns.day[i] !== 65535); }
  if (filters.until) { const last = day(filters.until); tests.push((i) => columns.day[i] <= last); }
  if (filters.box) {
    const [w, s, e, n] = filters.box;
    tests.push((i) => latitude[i] >= s && latitude[i] <= n
      && (w <= e ? longitude[i] >= w && longitude[i] <= e : longitude[i] >= w || longitude[i] <= e));
  }
  return tests.length ? (i) => tests.every((test) => test(i)) : null;
}

/** Return {colours, palette, legend} for the map; `shown` is the only class in colour, if set. */
export function paint(catalogue, { colour, filters, shown }, distances, shortNames) {
  const by = { split: bySplit, distance: byDistance }[colour === "distance" && !distances ? "" : colour] ?? byLabel;
  const { groups, groupOf } = by(catalogue, distances, shown, shortNames);
  const palette = Uint32Array.from([packed(OTHER, 70), ...groups.map((group) => packed(group.colour))]);
  const colours = new Uint8Array(catalogue.size), pass = passes(catalogue, filters);
  for (let i = 0; i < catalogue.size; i++) colours[i] = pass && !pass(i) ? 0 : groupOf(i);
  return { colours, palette, legend: groups.filter((group) => group.text) };
}

function byLabel({ columns: { labels }, class_names: names }, _, shown, shortNames) {
  const count = new Uint32Array(names.length);
  for (const value of labels) for (let c = 0; c < names.length; c++) count[c] += (value >>> c) & 1;
  const groups = names.map((name, c) => ({
    colour: CLASSES[c % CLASSES.length], text: count[c] ? shortNames[c] : "", title: name, count: count[c], choice: name,
  }));
  groups.push({ colour: OTHER, text: "" });
  const only = names.indexOf(shown);
  if (only >= 0) return { groups, groupOf: (i) => ((labels[i] >>> only) & 1 ? only + 1 : 0) };
  // A patch with several labels has the colour of its rarest label, so that rare classes are visible.
  const rank = [...count.keys()].sort((a, b) => count[a] - count[b]);
  return { groups, groupOf: (i) => {
    for (const c of rank) if ((labels[i] >>> c) & 1) return c + 1;
    return names.length + 1;
  } };
}

function bySplit({ columns: { split }, values }) {
  const groups = values.split.map((name) => ({ colour: SPLITS[name] ?? OTHER, text: name || "no split" }));
  return { groups, groupOf: (i) => split[i] + 1 };
}

function byDistance(_, distances) {
  // Most distances are similar, so colours show the share of nearer patches, not the distance itself.
  const below = new Float64Array(257);
  for (const value of distances) below[value + 1]++;
  for (let v = 0; v < 256; v++) below[v + 1] += below[v];
  const level = Array.from({ length: 256 }, (_unused, v) => Math.floor((Math.sqrt(below[v] / below[255] || 0)) * 15.99));
  const groups = Array.from({ length: 16 }, (_unused, v) => ({
    colour: hex(ramp(v / 15)), text: { 0: "nearest", 8: "nearest 25 %", 15: "farthest" }[v] ?? "",
  }));
  groups.push({ colour: OTHER, text: "" });
  return { groups, groupOf: (i) => (distances[i] === 255 ? 17 : level[distances[i]] + 1) };
}
