// Ways to choose a query: a name with completion, a location, uploaded files, or a random patch.

import { names, surprise, upload } from "./api.js";
import { byId, make } from "./dom.js";

const PLACE = /^\s*(-?\d+(?:\.\d+)?)\s*[,;\s]\s*(-?\d+(?:\.\d+)?)\s*$/;
const BEGINNING = { patch: "", at: "", upload: "", like: [], unlike: [], method: "rocchio" };

/** Connect the form at the top. `begin(fields)` starts a new query; `busy(text)` and `fail(error)` report progress. */
export function connectForm({ begin, busy, fail, hasUploads }) {
  const input = byId("name"), list = byId("names");
  let active = -1, latest = null;

  const close = () => { list.hidden = true; active = -1; input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); };
  const choose = (patch) => { input.value = patch; close(); begin({ ...BEGINNING, patch }); };
  const point = (to) => {
    const options = [...list.children];
    active = (to + options.length) % options.length;
    options.forEach((option, i) => option.setAttribute("aria-selected", String(i === active)));
    input.setAttribute("aria-activedescendant", options[active].id);
    options[active].scrollIntoView({ block: "nearest" });
  };

  input.addEventListener("input", async () => {
    latest?.abort();
    const text = input.value.trim();
    if (text.length < 2 || PLACE.test(text)) { close(); return; }
    latest = new AbortController();
    try {
      const found = await names(text, latest.signal);
      list.replaceChildren(...found.map((name, i) => make("li", { role: "option", id: `name-${i}`, "aria-selected": "false", text: name,
        on: { mousedown: (event) => { event.preventDefault(); choose(name); } } })));
      active = -1;
      list.hidden = !found.length;
      input.setAttribute("aria-expanded", String(found.length > 0));
    } catch (error) { if (error.name !== "AbortError") close(); }
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !list.hidden) { event.preventDefault(); close(); }
    if (list.hidden || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
    event.preventDefault();
    point(active + (event.key === "ArrowDown" ? 1 : active < 0 ? 0 : -1));
  });
  input.addEventListener("blur", () => setTimeout(close, 100));
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    latest?.abort();
    const text = active >= 0 ? list.children[active].textContent : input.value.trim(), place = PLACE.exec(text);
    if (!text) return;
    if (place) { close(); begin({ ...BEGINNING, at: `${place[1]},${place[2]}` }); } else choose(text);
  });

  const random = async () => {
    try { begin({ ...BEGINNING, patch: (await surprise()).name_s2 }); } catch (error) { fail(error); }
  };
  byId("surprise").addEventListener("click", random);
  byId("surprise-too").addEventListener("click", random);

  const send = async (files) => {
    if (!files.length) return;
    busy("Reading the upload. The first upload takes longer, because the encoder is loaded.");
    try {
      const own = await upload(files);
      begin({ ...BEGINNING, upload: own.upload }, own);
    } catch (error) { fail(error); }
  };
  byId("choose-files").hidden = !hasUploads;
  byId("choose-files").addEventListener("click", () => byId("files").click());
  byId("files").addEventListener("change", async (event) => { await send([...event.target.files]); event.target.value = ""; });
  if (!hasUploads) return;
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    send([...event.dataTransfer.files]);
  });
}
