// The query, stored in the page's URL: every state can be shared, and the back button works.

const LISTS = {
  label: "labels", any: "any_labels", without: "without_labels", country: "countries", season: "seasons", split: "splits",
};
const DIRECTIONS = ["fused", "s1_s1", "s2_s2", "s1_s2", "s2_s1", "s1_fused", "s2_fused"];

export const empty = () => ({
  patch: "", at: "", upload: "", like: [], unlike: [], method: "rocchio", direction: "fused", k: 20,
  filters: { labels: [], any_labels: [], without_labels: [], countries: [], seasons: [], splits: [],
    since: "", until: "", box: null, exclude_within: null },
  colour: "label", shown: "",
});

/** Read a state from the query part of a URL; invalid values are replaced by the defaults. */
export function parse(search) {
  const given = new URLSearchParams(search), state = empty(), { filters } = state;
  for (const key of ["patch", "at", "upload", "shown"]) state[key] = given.get(key) ?? "";
  for (const key of ["like", "unlike"]) state[key] = [...new Set(given.getAll(key).filter(Boolean))];
  for (const [key, name] of Object.entries(LISTS)) filters[name] = [...new Set(given.getAll(key).filter(Boolean))];
  if (given.get("method") === "logistic") state.method = "logistic";
  if (DIRECTIONS.includes(given.get("direction"))) state.direction = given.get("direction");
  if (["split", "distance"].includes(given.get("colour"))) state.colour = given.get("colour");
  const k = Number(given.get("k"));
  if (Number.isInteger(k) && k >= 1 && k <= 1000) state.k = k;
  for (const key of ["since", "until"]) if (/^\d{4}-\d{2}-\d{2}$/.test(given.get(key) ?? "")) filters[key] = given.get(key);
  const box = (given.get("box") ?? "").split(",").map(Number);
  if (given.get("box") && box.length === 4 && box.every(Number.isFinite)) filters.box = box;
  const near = given.get("apart");
  if (near && /^\d{1,4}$/.test(near)) filters.exclude_within = Number(near);
  return state;
}

/** Return the query part of the URL of a state; defaults are left out. */
export function format(state) {
  const out = new URLSearchParams(), { filters } = state, base = empty();
  for (const key of ["patch", "at", "upload", "direction", "k", "method", "colour", "shown"]) {
    if (state[key] !== base[key]) out.set(key, state[key]);
  }
  for (const key of ["like", "unlike"]) for (const name of state[key]) out.append(key, name);
  for (const [key, name] of Object.entries(LISTS)) for (const word of filters[name]) out.append(key, word);
  for (const key of ["since", "until"]) if (filters[key]) out.set(key, filters[key]);
  if (filters.box) out.set("box", filters.box.join(","));
  if (filters.exclude_within !== null) out.set("apart", filters.exclude_within);
  return out.toString();
}

/** Return the request for the API, or null without a query. */
export function question(state, run = 0) {
  const { filters } = state, asks = { run, direction: state.direction, k: state.k, method: state.method };
  if (state.patch) asks.patch = state.patch;
  else if (state.at) asks.at = state.at.split(",").map(Number);
  else if (state.upload) asks.upload = state.upload;
  else if (!state.like.length) return null;
  asks.like = state.like;
  asks.unlike = state.unlike;
  asks.filters = { ...filters, since: filters.since || null, until: filters.until || null };
  return asks;
}

/** Return how many filters are set. */
export function filterCount({ filters }) {
  return Object.values(filters).reduce((sum, value) => sum + (Array.isArray(value) && value !== filters.box
    ? value.length : Number(value !== null && value !== "")), 0);
}
