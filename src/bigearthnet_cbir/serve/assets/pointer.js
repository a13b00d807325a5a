// Mouse, touch and keys on the map: drag to move, wheel or two fingers to zoom, shift or the box mode to draw a box.

const STEP = 80; // pixels that an arrow key moves the map
const CLICK = 4; // pixels that a pointer may move during a click

/** Make a map follow the pointer and the keyboard. */
export function connect(map) {
  const { box } = map, held = new Map(); // pointer -> position
  let start = null, moved = false;
  const at = (event) => {
    const edge = box.getBoundingClientRect();
    return [event.clientX - edge.left, event.clientY - edge.top];
  };
  /** Return the centre of the held pointers, and the distance between them (1 for a single one). */
  const grip = () => {
    const [[ax, ay], [bx, by]] = [[...held.values()].at(0), [...held.values()].at(-1)];
    return { x: (ax + bx) / 2, y: (ay + by) / 2, spread: Math.hypot(ax - bx, ay - by) || 1 };
  };

  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    box.setPointerCapture(event.pointerId);
    held.set(event.pointerId, start = at(event));
    moved = held.size > 1;
    map.setDrawn(!moved && (map.boxMode || event.shiftKey) ? [...start, ...start] : null);
  });

  box.addEventListener("pointermove", (event) => {
    const here = at(event);
    if (!held.has(event.pointerId)) { map.events.hover(map.indexAt(...here), ...here); return; }
    moved ||= Math.hypot(here[0] - start[0], here[1] - start[1]) > CLICK;
    const before = grip();
    held.set(event.pointerId, here);
    const { x, y, spread } = grip();
    if (map.drawn) map.setDrawn([...start, ...here]);
    else if (moved) {
      map.pan(x - before.x, y - before.y);
      map.zoom(spread / before.spread, x, y);
    }
  });

  const end = (event) => {
    if (!held.delete(event.pointerId)) return;
    const { drawn } = map;
    map.setDrawn(null);
    if (event.type === "pointercancel") return;
    if (drawn && moved) map.events.boxed(map.toDegrees(drawn));
    const index = moved ? -1 : map.indexAt(...at(event));
    if (index >= 0) map.events.pick(index);
  };
  box.addEventListener("pointerup", end);
  box.addEventListener("pointercancel", end);
  box.addEventListener("pointerleave", () => { if (!held.size) map.events.hover(-1); });
  box.addEventListener("wheel", (event) => {
    event.preventDefault();
    map.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...at(event));
  }, { passive: false });

  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowLeft: () => map.pan(STEP, 0), ArrowRight: () => map.pan(-STEP, 0),
      ArrowUp: () => map.pan(0, STEP), ArrowDown: () => map.pan(0, -STEP),
      "+": () => map.zoom(1.5), "=": () => map.zoom(1.5), "-": () => map.zoom(1 / 1.5), 0: () => map.home(), Enter: () => {},
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
    // The patch nearest to the centre of the map is highlighted; Enter selects it.
    const [x, y] = [map.width / 2, map.height / 2], index = map.indexAt(x, y, Math.min(x, y));
    if (event.key !== "Enter") map.events.hover(index, x, y);
    else if (index >= 0) map.events.pick(index);
  });
}
