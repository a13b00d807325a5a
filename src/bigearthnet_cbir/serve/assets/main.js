// The page: reads the state from the URL, sends queries, and keeps map, results and URL consistent.

import * as api from "./api.js";
import { connectForm } from "./ask.js";
import { Chips } from "./chips.js";
import { paint } from "./colours.js";
import { byId, dayText, make, number } from "./dom.js";
import { DotMap } from "./map.js";
import { connect } from "./pointer.js";
import { Results } from "./results.js";
import { connectSaving } from "./saving.js";
import { empty, filterCount, format, parse, question } from "./state.js";

const DIRECTIONS = [
  ["fused", "Fused → fused"], ["s1_s1", "S1 → S1"], ["s2_s2", "S2 → S2"], ["s1_s2", "S1 → S2"], ["s2_s1", "S2 → S1"],
  ["s1_fused", "S1 → fused"], ["s2_fused", "S2 → fused"],
];

let state = parse(location.search), known = null, catalogue = null, distances = null, asking = null, own = null, answers = [];

const tell = (text) => { byId("status").textContent = text; };
const fail = (error) => {
  byId("problem").textContent = error.message;
  byId("problem").hidden = false;
  byId("lists").removeAttribute("aria-busy");
  tell("");
};
const byPosition = (index) => api.atPosition(index).then((patch) => begin({ ...empty(), patch: patch.name_s2 })).catch(fail);

const results = new Results({
  ask: (patch) => begin({ ...empty(), patch: patch.name_s2 }),
  mark: (patch, kind) => change((next) => {
    const other = kind === "like" ? "unlike" : "like", has = next[kind].includes(patch.name_s2);
    next[kind] = has ? next[kind].filter((name) => name !== patch.name_s2) : [...next[kind], patch.name_s2];
    next[other] = next[other].filter((name) => name !== patch.name_s2);
  }),
  hover: (index) => map.setHovered(index),
});
const map = new DotMap(byId("plane"), {
  hover: (index, x, y) => { map.setHovered(index); results.point(index, index >= 0); showTip(index, x, y); },
  pick: byPosition,
  boxed: (box) => { setBoxMode(false); change((next) => { next.filters.box = box; }); },
});
connect(map);

/** Start a new query with the same filters, direction and colours. */
function begin(fields, uploaded = null) {
  own = uploaded;
  const { patch, at, upload } = fields;
  change((next) => {
    Object.assign(next, { patch, at, upload, like: [], unlike: [], method: "rocchio" });
    if (own && !own.directions.includes(next.direction)) [next.direction] = own.directions;
  });
}

/** Change the state, write it to the URL, and search again. */
function change(update) {
  state = structuredClone(state);
  update(state);
  const address = format(state);
  if (`?${address}` !== location.search) history.pushState(null, "", address ? `?${address}` : location.pathname);
  show();
}

addEventListener("popstate", () => { state = parse(location.search); show(); });

async function show() {
  byId("direction").value = state.direction;
  if (![...byId("k").options].some((option) => Number(option.value) === state.k)) byId("k").append(make("option", { text: String(state.k) }));
  byId("k").value = String(state.k);
  byId("colour").value = state.colour;
  byId("name").value = state.patch || state.at;
  chips.show(state);
  map.setFilterBox(state.filters.box);
  byId("problem").hidden = true;
  await ask();
}

async function ask() {
  asking?.abort();
  const signal = (asking = new AbortController()).signal;
  const asked = known.runs.map((_, run) => question(state, run));
  byId("begin").hidden = asked[0] !== null;
  if (asked[0] === null) { answers = []; distances = null; results.clear(); drawMarks(); tell(`${number(known.runs[0].size)} patches`); colourDots(); return; }
  results.wait();
  try {
    const found = await Promise.all(asked.map((one) => api.search(one, signal)));
    distances = state.colour === "distance" ? await api.similarity(asked[0], signal) : null;
    if (signal.aborted) return;
    answers = found;
    results.show(answers, state, state.upload ? own ?? { upload: state.upload, sensors: ["s2", "s1"], warnings: [] } : null);
    tell(sentence(answers));
    byId("name").value = state.patch || state.at;
    drawMarks();
    colourDots();
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    results.clear();
    answers = [];
    drawMarks();
    fail(error);
  }
}

function sentence([{ results: found, kept, size, milliseconds }]) {
  const among = filterCount(state) ? `${number(kept)} patches that pass the filters (${number(size)} in total)` : `${number(size)} patches`;
  if (!found.length) return "No patch passes the filters; remove a filter.";
  return `The ${number(found.length)} nearest of ${among} · ${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
}

function drawMarks() {
  const rings = [], seen = new Set();
  for (const { query } of answers.slice(0, 1)) if (query) rings.push({ index: query.on_map, kind: "query" });
  for (const { results: found } of answers) {
    for (const { on_map: index, rank, name_s2: name } of found) {
      if (seen.has(index)) continue;
      seen.add(index);
      rings.push({ index, text: rank <= 99 ? String(rank) : "", kind: state.like.includes(name) ? "more" : state.unlike.includes(name) ? "less" : "result" });
    }
  }
  map.setResults(rings);
}

function colourDots() {
  if (!catalogue) return;
  const { colours, palette, legend } = paint(catalogue, state, distances, known.short_names);
  map.setColours(colours, palette);
  byId("legend").replaceChildren(...legend.map(({ colour, text, title, count, choice }) => {
    const swatch = make("canvas", { width: 12, height: 12, "aria-hidden": "true" }), pen = swatch.getContext("2d");
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 12, 12);
    const inside = [swatch, make("span", { text }), count !== undefined && make("small", { text: number(count) })];
    if (!choice) return make("div", { className: "entry" }, inside);
    return make("button", { type: "button", className: "entry", title: `Show only ${title}`, "aria-pressed": String(state.shown === choice),
      on: { click: () => { change((next) => { next.shown = next.shown === choice ? "" : choice; }); } } }, inside);
  }));
}

function showTip(index, x, y) {
  const tip = byId("tip"), result = answers.flatMap((answer) => answer.results).find((found) => found.on_map === index);
  tip.hidden = index < 0 || !catalogue;
  if (tip.hidden) return;
  const { columns, values, class_names: names } = catalogue;
  const labels = names.filter((_, c) => (columns.labels[index] >>> c) & 1).map((name) => known.short_names[names.indexOf(name)]);
  const day = columns.day[index] === 65535 ? "" : dayText(new Date(columns.day[index] * 864e5).toISOString().slice(0, 10));
  const about = [result && `result ${result.rank}`, values.country[columns.country[index]], day].filter(Boolean).join(" · ");
  tip.replaceChildren(make("b", { text: labels.join(", ") || "no labels" }), make("span", { text: about }));
  if (x === undefined) return;
  tip.style.setProperty("left", `${Math.min(x + 14, Math.max(8, map.width - 230))}px`);
  tip.style.setProperty("top", `${Math.min(y + 14, Math.max(8, map.height - 70))}px`);
  if (document.activeElement === byId("plane")) byId("tip-text").textContent = `${labels.join(", ") || "no labels"}. ${about}. Press Enter to search with it.`;
}

function setBoxMode(on) {
  map.boxMode = on;
  byId("draw-box").setAttribute("aria-pressed", String(on));
  byId("plane").classList.toggle("boxing", on);
}

let chips;
async function start() {
  byId("direction").append(...DIRECTIONS.map(([value, text]) => make("option", { value, text })));
  byId("direction").addEventListener("change", (event) => change((next) => { next.direction = event.target.value; }));
  byId("k").addEventListener("change", (event) => change((next) => { next.k = Number(event.target.value); }));
  byId("colour").addEventListener("change", (event) => change((next) => { next.colour = event.target.value; next.shown = ""; }));
  const tools = {
    "zoom-in": () => map.zoom(1.6), "zoom-out": () => map.zoom(1 / 1.6), home: () => map.home(), "draw-box": () => setBoxMode(!map.boxMode),
    near: () => map.fitTo(answers.flatMap(({ query, results: found }) => [query, ...found].filter(Boolean).map((patch) => patch.on_map))),
  };
  for (const [id, act] of Object.entries(tools)) byId(id).addEventListener("click", act);
  closeMenusOutside();
  api.outlines().then((outlines) => map.setOutlines(outlines)).catch(() => { /* the map works without outlines */ });
  const columns = api.catalogue();
  columns.catch(() => { /* reported below */ });
  try {
    known = await api.health();
    results.shortNames = new Map(known.class_names.map((name, i) => [name, known.short_names[i]]));
    byId("run-names").textContent = known.runs.map((run) => run.run).join(" · ");
    chips = new Chips(known, change, () => map.toDegrees([0, 0, map.width, map.height]));
    connectForm({ begin, busy: tell, fail, hasUploads: known.uploads });
    connectSaving({ current: () => ({ state, question: question(state) }), change, tell, fail });
    show();
    catalogue = await columns;
    map.setPoints(catalogue.columns.longitude, catalogue.columns.latitude);
    colourDots();
    drawMarks();
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
  } catch (error) { fail(error); }
}

function closeMenusOutside() {
  const menus = [...document.querySelectorAll("details.menu")];
  addEventListener("click", (event) => menus.forEach((menu) => { if (!menu.contains(event.target)) menu.open = false; }));
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of menus.filter((one) => one.open)) { menu.open = false; menu.querySelector("summary").focus(); }
  });
}

start();
