// Export: results as files, the link, and marks as a file that can be loaded again.

import { exported } from "./api.js";
import { byId, download } from "./dom.js";

const KIND = "bigearthnet-cbir marks";
const MOST = 200;

/** Connect the menu. `current()` gives {state, question}; `change(update)` applies update(state) and searches again. */
export function connectSaving({ current, change, tell, fail }) {
  for (const button of document.querySelectorAll("[data-export]")) {
    button.addEventListener("click", async () => {
      const { question } = current(), format = button.dataset.export;
      if (!question) { tell("There is no query yet, so there are no results to save."); return; }
      tell("Writing the file.");
      try {
        download(`similar_patches.${format}`, await exported(question, format));
        tell(`similar_patches.${format} was written.`);
      } catch (error) { fail(error); }
    });
  }
  byId("copy-link").addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(location.href); tell("The link was copied."); } catch { tell(`The link: ${location.href}`); }
  });
  byId("save-marks").addEventListener("click", () => {
    const { state: { patch, like, unlike, direction, method } } = current();
    const content = { kind: KIND, version: 1, patch, like, unlike, direction, method };
    download("marks.json", new Blob([`${JSON.stringify(content, null, 1)}\n`], { type: "application/json" }));
    tell(`${like.length + unlike.length} marks were written to marks.json.`);
  });
  byId("load-marks").addEventListener("click", () => byId("marks-file").click());
  byId("marks-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    try {
      const found = read(await file.text());
      change((state) => Object.assign(state, found, found.patch ? { at: "", upload: "" } : {}));
    } catch (error) { fail(error); }
  });
}

/** Return the marks in the text of a file; the server checks the names. */
function read(text) {
  let found = null;
  try { found = JSON.parse(text); } catch { /* reported below */ }
  const isNames = (list) => Array.isArray(list) && list.length <= MOST && list.every((name) => typeof name === "string" && name && name.length <= 200);
  if (found?.kind !== KIND || !isNames(found.like) || !isNames(found.unlike)) throw new Error("This file has no marks; choose a file that this page saved.");
  const patch = typeof found.patch === "string" ? found.patch : "";
  return { like: found.like, unlike: found.unlike, ...(patch ? { patch } : {}), method: found.method === "logistic" ? "logistic" : "rocchio" };
}
