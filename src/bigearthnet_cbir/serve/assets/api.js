// Requests to the server. An error response is thrown as an Error with the server's message.

async function checked(response) {
  if (response.ok) return response;
  let reason = `The server responded with status ${response.status}.`;
  try { reason = (await response.json()).error ?? reason; } catch { /* no JSON */ }
  throw new Error(reason);
}

async function request(path, options) {
  let response;
  try { response = await fetch(path, options); } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not respond; check that it is running.");
  }
  return checked(response);
}

const post = (path, body, signal) => request(path, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal,
});

export const health = async () => (await request("/api/health")).json();
export const outlines = async () => (await request("/assets/outlines.json")).json();
export const search = async (asks, signal) => (await post("/api/search", asks, signal)).json();
export const similarity = async (asks, signal) => new Uint8Array(await (await post("/api/similarity", asks, signal)).arrayBuffer());
export const exported = async (asks, format) => (await post("/api/export", { ...asks, format })).blob();
export const atPosition = async (position) => (await request(`/api/position/${position}`)).json();
export const surprise = async () => (await request("/api/surprise")).json();
export const names = async (prefix, signal) => (await (await request(`/api/names?prefix=${encodeURIComponent(prefix)}`, { signal })).json()).names;
export const thumbnail = (name, sensor) => `/api/thumbnail/${encodeURIComponent(name)}/${sensor}`;

export async function upload(files) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  return (await request("/api/upload", { method: "POST", body: form })).json();
}

const TYPES = { f4: Float32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array };

/** Return the catalogue: {size, class_names, values, columns: {name: typed array}}; docs/serve.md has the format. */
export async function catalogue() {
  const bytes = await (await request("/api/catalogue", { credentials: "same-origin" })).arrayBuffer();
  const length = new DataView(bytes).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  const columns = {};
  for (const [name, { type, at }] of Object.entries(head.columns)) {
    columns[name] = new TYPES[type](bytes, 4 + length + at, head.size);
  }
  return { ...head, columns };
}
