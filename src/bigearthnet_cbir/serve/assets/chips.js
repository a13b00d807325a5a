// Filters and marks as removable chips, and the form that adds a filter.

import { byId, dayText, hidden, make } from "./dom.js";

const KINDS = [
  ["labels", "has the label"], ["any_labels", "has any of"], ["without_labels", "without the label"], ["countries", "in country"],
  ["seasons", "in season"], ["splits", "in split"], ["since", "from date"], ["until", "to date"], ["exclude_within", "distance from the query"],
];
const WORDS = { labels: "class_names", any_labels: "class_names", without_labels: "class_names", countries: "countries", seasons: "seasons", splits: "splits" };
const COUNT = 5; // marks of each kind that a logistic regression needs, as in query/feedback.py

/** Shows and changes the filters and marks of a state. `change(update)` applies update(state) and searches again;
 *  `viewBox()` returns the visible extent of the map in degrees, for the filter by current view. */
export class Chips {
  constructor(known, change, viewBox) {
    this.known = known;
    this.change = change;
    this.viewBox = viewBox;
    this.shortOf = new Map(known.class_names.map((name, i) => [name, known.short_names[i]]));
    const kind = byId("filter-kind");
    const useful = KINDS.filter(([name]) => !WORDS[name] || known[WORDS[name]].length);
    kind.append(...[...useful, ["view", "in the visible map"]].map(([value, text]) => make("option", { value, text })));
    kind.addEventListener("change", () => this.offer());
    byId("add-filter").addEventListener("submit", (event) => { event.preventDefault(); this.add(); });
    this.offer();
  }

  /** Offer the values of the chosen kind of filter. */
  offer() {
    const kind = byId("filter-kind").value, words = WORDS[kind], isDay = kind === "since" || kind === "until";
    byId("filter-label").hidden = kind === "view";
    byId("filter-value").hidden = !words;
    byId("filter-day").hidden = !isDay;
    byId("filter-steps").hidden = kind !== "exclude_within";
    if (words) {
      byId("filter-value").replaceChildren(...this.known[words].map((value) => make("option", { value, text: value })));
    }
    if (isDay && !byId("filter-day").value) byId("filter-day").value = this.known[kind === "since" ? "first_day" : "last_day"] ?? "";
  }

  add() {
    const kind = byId("filter-kind").value;
    this.change(({ filters }) => {
      if (kind === "view") filters.box = this.viewBox();
      else if (kind === "exclude_within") filters.exclude_within = Number(byId("filter-steps").value) || 0;
      else if (kind === "since" || kind === "until") filters[kind] = byId("filter-day").value;
      else if (!filters[kind].includes(byId("filter-value").value)) filters[kind].push(byId("filter-value").value);
    });
  }

  show(state) {
    const { filters } = state, chips = [];
    const chip = (className, says, text, title, remove) => chips.push(make("button", {
      type: "button", className: `chip ${className}`, title: `${title}: remove`, on: { click: () => this.change(remove) },
    }, [hidden(`Remove ${says}`), make("span", { text }), make("span", { className: "x", "aria-hidden": "true", text: "×" })]));
    for (const [kind, says] of KINDS) {
      const value = filters[kind];
      if (Array.isArray(value)) {
        for (const word of value) {
          chip("filter", "the filter: ", `${says} ${this.shortOf.get(word) ?? word}`, `${says} ${word}`,
            (next) => { next.filters[kind] = next.filters[kind].filter((other) => other !== word); });
        }
      } else if (value !== null && value !== "") {
        const text = kind === "exclude_within" ? `more than ${value} patches away` : `${says.split(" ")[0]} ${dayText(value)}`;
        chip("filter", "the filter: ", text, text, (next) => { next.filters[kind] = kind === "exclude_within" ? null : ""; });
      }
    }
    if (filters.box) {
      const text = `in the box ${filters.box.map((value) => value.toFixed(1)).join(", ")}`;
      chip("filter", "the filter: ", text, text, (next) => { next.filters.box = null; });
    }
    for (const [kind, sign, says] of [["like", "+", "more like "], ["unlike", "−", "not like "]]) {
      for (const name of state[kind]) {
        chip(kind, `the mark: ${says}`, `${sign} ${shortened(name)}`, `${says}${name}`,
          (next) => { next[kind] = next[kind].filter((other) => other !== name); });
      }
    }
    if (chips.length > 2) {
      chips.push(make("button", { type: "button", className: "chip plain", text: "Remove all", on: { click: () => this.change((next) => {
        Object.assign(next, { like: [], unlike: [], method: "rocchio" });
        Object.assign(next.filters, { labels: [], any_labels: [], without_labels: [], countries: [], seasons: [], splits: [], since: "", until: "", box: null, exclude_within: null });
      }) } }));
    }
    const likes = state.like.length + Number(Boolean(state.patch || state.at || state.upload));
    if (likes >= COUNT && state.unlike.length >= COUNT) {
      chips.push(make("button", { type: "button", className: "chip plain", "aria-pressed": String(state.method === "logistic"),
        title: "Compute the query by logistic regression on the marks instead of from their means (Rocchio)", text: "Logistic regression",
        on: { click: () => this.change((next) => { next.method = next.method === "logistic" ? "rocchio" : "logistic"; }) } }));
    }
    byId("chips").replaceChildren(...chips);
  }
}

/** Return the end of a patch's name: tile, column and row. */
function shortened(name) {
  const parts = name.split("_");
  return parts.length > 3 ? parts.slice(-3).join("_") : name;
}
