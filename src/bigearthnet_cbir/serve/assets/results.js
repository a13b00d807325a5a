// The query's card and the lists of results: one list for each encoder.

import { thumbnail } from "./api.js";
import { byId, dayText, hidden, make, number, placeText } from "./dom.js";

const SENSORS = { s2: "Sentinel-2, true colour", s1: "Sentinel-1, false colour" };

/** Draws the results. `events`: ask(patch), mark(patch, kind), hover(index). */
export class Results {
  constructor(events) {
    this.events = events;
    this.shortNames = new Map();
    this.box = byId("lists");
    this.box.addEventListener("keydown", (event) => this.move(event));
  }

  /** Show empty cards while the first answer loads, or the previous answer, dimmed. */
  wait() {
    this.box.setAttribute("aria-busy", "true");
    if (this.box.children.length) return;
    const cards = Array.from({ length: 6 }, () => make("li", { className: "card empty" }));
    this.box.append(make("ol", { className: "cards", "aria-hidden": "true" }, cards));
  }

  clear() {
    this.box.removeAttribute("aria-busy");
    this.box.replaceChildren();
    byId("query").replaceChildren();
  }

  /** Show the answers of all runs to one query. `own` is an upload's {upload, sensors, warnings}, or null. */
  show(answers, state, own) {
    this.clear();
    byId("query").replaceChildren(...[own ? this.uploadCard(own) : this.queryCard(answers[0].query)].filter(Boolean));
    const found = answers.map((answer) => new Set(answer.results.map((result) => result.name_s2)));
    this.box.className = answers.length > 1 ? "several" : "";
    answers.forEach((answer, run) => {
      const others = found.filter((_, other) => other !== run);
      const cards = answer.results.map((result) => this.card(result, state, {
        run, only: others.length > 0 && !others.some((names) => names.has(result.name_s2)),
      }));
      const only = cards.filter((card) => card.dataset.only).length;
      const heading = answers.length > 1 && make("h2", { className: `run run-${run}` }, [
        make("span", { text: answer.run }), make("small", { text: only ? `${number(only)} found only by this run` : "the same patches" }),
      ]);
      this.box.append(make("section", { "aria-label": `Results of ${answer.run}` }, [
        heading, make("ol", { className: "cards" }, cards),
      ]));
    });
  }

  images(patch, links = {}) {
    return make("span", { className: "images" }, Object.entries(SENSORS).filter(([sensor]) => !links.only || links[sensor])
      .map(([sensor, title]) => {
        const image = make("img", {
          src: links[sensor] ?? thumbnail(patch.name_s2, sensor), alt: title, title, width: 120, height: 120, loading: "lazy", decoding: "async",
        });
        image.addEventListener("error", () => {
          image.replaceWith(make("span", { className: "no-image", role: "img", "aria-label": "no image", text: "no image" }));
        });
        return image;
      }));
  }

  labels(patch) {
    if (!patch.labels.length) return make("p", { className: "muted small", text: "no labels" });
    const shared = new Set(patch.shared ?? []);
    return make("ul", { className: "labels" }, patch.labels.map((label) => make("li", {
      className: shared.has(label) ? "shared" : "", title: label,
    }, [shared.has(label) && make("span", { "aria-hidden": "true", text: "✓ " }), shared.has(label) && hidden("shared: "),
      this.shortNames.get(label) ?? label])));
  }

  about(patch) {
    const parts = [patch.country, dayText(patch.date_s2 ?? patch.date_s1)].filter(Boolean);
    return make("p", { className: "about", text: parts.join(" · ") });
  }

  queryCard(patch) {
    if (!patch) return null;
    return make("article", { className: "query", "aria-label": "Query", data: { index: patch.on_map } }, [
      this.images(patch),
      make("div", {}, [
        make("h2", { text: "Query" }), make("p", { className: "name", text: patch.name_s2 }),
        make("p", { className: "name muted", text: patch.name_s1 }), this.labels(patch),
        make("p", { className: "about", text: [patch.country, dayText(patch.date_s2), placeText(patch.longitude, patch.latitude)].filter(Boolean).join(" · ") }),
      ]),
    ]);
  }

  uploadCard(own) {
    const links = { ...Object.fromEntries(own.sensors.map((sensor) => [sensor, `/api/upload/${own.upload}/${sensor}`])), only: true };
    return make("article", { className: "query", "aria-label": "Query" }, [
      this.images({}, links),
      make("div", {}, [
        make("h2", { text: "Query: your upload" }),
        make("p", { className: "about", text: own.sensors.map((sensor) => (sensor === "s1" ? "Sentinel-1" : "Sentinel-2")).join(" and ") }),
        ...own.warnings.map((text) => make("p", { className: "note", text })),
      ]),
    ]);
  }

  card(result, state, { run, only }) {
    const act = (kind) => () => this.events.mark(result, kind);
    const mark = (kind, sign, title) => make("button", {
      type: "button", className: `mark ${kind}`, "aria-pressed": String(state[kind].includes(result.name_s2)),
      "aria-label": `${title}, result ${result.rank}`, title, on: { click: act(kind) },
    }, [make("span", { "aria-hidden": "true", text: sign })]);
    const hover = (index) => () => this.events.hover(index);
    return make("li", {
      className: `card${only ? " only" : ""}`, data: { index: result.on_map, ...(only ? { only: "1" } : {}) },
      on: { mouseenter: hover(result.on_map), mouseleave: hover(-1), focusin: hover(result.on_map), focusout: hover(-1) },
    }, [
      make("button", {
        type: "button", className: "pick", title: `Search with ${result.name_s2}`,
        "aria-label": `Result ${result.rank}, distance ${result.distance.toFixed(3)}, ${result.labels.join(", ") || "no labels"}: search with this patch`,
        on: { click: () => this.events.ask(result) },
      }, [this.images(result)]),
      make("p", { className: "rank" }, [
        make("b", { text: String(result.rank) }), make("span", { className: "distance", title: "distance to the query", text: result.distance.toFixed(3) }),
        only && make("span", { className: `tag run-${run}`, text: "only here" }),
        make("span", { className: "gap" }), mark("like", "+", "More like this"), mark("unlike", "−", "Not like this"),
      ]),
      this.labels(result), this.about(result),
    ]);
  }

  /** Highlight the cards of the patch under the pointer on the map; scroll the first into view. */
  point(index, scroll) {
    let first = null;
    for (const card of this.box.querySelectorAll(".card[data-index]")) {
      const meant = index >= 0 && Number(card.dataset.index) === index;
      card.classList.toggle("pointed", meant);
      if (meant && !first) first = card;
    }
    if (first && scroll) first.scrollIntoView({ block: "nearest", behavior: "auto" });
    return first !== null;
  }

  /** Arrow keys move between the cards. */
  move(event) {
    if (!event.key.startsWith("Arrow") || !event.target.classList.contains("pick")) return;
    const list = event.target.closest(".cards"), picks = [...list.querySelectorAll(".pick")];
    const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const next = picks[picks.indexOf(event.target) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }
}
