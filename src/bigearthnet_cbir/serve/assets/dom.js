// Helpers for building the page. All text is inserted as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** Make an element: make("p", {className, text, ...attributes}, children). */
export function make(tag, { text, on = {}, data = {}, ...attributes } = {}, children = []) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "className") node.className = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null) node.setAttribute(name, value);
  }
  Object.assign(node.dataset, data);
  for (const [event, act] of Object.entries(on)) node.addEventListener(event, act);
  node.append(...children.filter(Boolean));
  return node;
}

export const hidden = (text) => make("span", { className: "hidden", text });

/** Offer a file for download. */
export function download(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
export const dayText = (iso) => (iso ? DATE.format(new Date(`${iso}T00:00Z`)) : "");
export const number = (value) => value.toLocaleString("en-US");
export const placeText = (lon, lat) => (lon === null || lat === null ? "" :
  `${Math.abs(lat).toFixed(3)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(lon).toFixed(3)}° ${lon < 0 ? "W" : "E"}`);
