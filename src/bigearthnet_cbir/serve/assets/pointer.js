// Mouse, touch and keys on the map: drag to move, wheel or two fingers to zoom, shift or the box mode to draw a box.

const STEP = 80; // pixels that an arrow key moves the map

/** Make a map follow the pointer and the keyboard. */
export function connect(map) {
  const { box } = map, held = new Map();
  let start = null, moved = false, spread = 0;
  const at = (event) => {
    const edge = box.getBoundingClientRect();
    return [event.clientX - edge.left, event.clientY - edge.top];
  };
  const apart = () => {
    const [a, b] = [...held.values()];
    return { distance: Math.hypot(a[0] - b[0], a[1] - b[1]), x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2 };
  };

  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest("button, select, label")) return;
    held.set(event.pointerId, at(event));
    box.setPointerCapture(event.pointerId);
    [start, moved] = [at(event), false];
    if (held.size === 2) { spread = apart().distance; map.drawn = null; }
    else if (map.boxMode || event.shiftKey) map.drawn = [...start, ...start];
  });

  box.addEventListener("pointermove", (event) => {
    const here = at(event), before = held.get(event.pointerId);
    if (!before) { hover(here); return; }
    if (Math.hypot(here[0] - start[0], here[1] - start[1]) > 4) moved = true;
    held.set(event.pointerId, here);
    if (held.size === 2) {
      const { distance, x, y } = apart();
      map.zoom(distance / spread, x, y);
      spread = distance;
    } else if (map.drawn) { map.drawn = [map.drawn[0], map.drawn[1], ...here]; map.drawOver(); }
    else if (moved) map.pan(here[0] - before[0], here[1] - before[1]);
  });

  const end = (event) => {
    if (!held.delete(event.pointerId)) return;
    const { drawn } = map;
    map.drawn = null;
    if (event.type === "pointercancel") { map.drawOver(); return; }
    if (drawn && moved) map.events.boxed(map.toDegrees(drawn));
    else if (!moved) {
      const index = map.indexAt(...at(event));
      if (index >= 0) map.events.pick(index);
    }
    map.drawOver();
  };
  box.addEventListener("pointerup", end);
  box.addEventListener("pointercancel", end);
  box.addEventListener("pointerleave", () => { if (!held.size) map.events.hover(-1); });
  box.addEventListener("wheel", (event) => {
    event.preventDefault();
    map.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...at(event));
  }, { passive: false });

  function hover([x, y]) { map.events.hover(map.indexAt(x, y), x, y); }

  box.addEventListener("keydown", (event) => {
    if (event.target !== box || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowLeft: () => map.pan(STEP, 0), ArrowRight: () => map.pan(-STEP, 0),
      ArrowUp: () => map.pan(0, STEP), ArrowDown: () => map.pan(0, -STEP),
      "+": () => map.zoom(1.5), "=": () => map.zoom(1.5), "-": () => map.zoom(1 / 1.5), 0: () => map.home(),
      Enter: () => middle((index) => map.events.pick(index)),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
    if (event.key !== "Enter") middle((index, x, y) => map.events.hover(index, x, y), -1);
  });

  /** Report the patch nearest to the centre of the map, which Enter selects. */
  function middle(use) {
    const [x, y] = [map.width / 2, map.height / 2];
    const index = map.points.nearest(...map.toUnit(x, y), Math.min(x, y) / map.view.scale);
    if (index >= 0) use(index, x, y);
    else map.events.hover(-1);
  }
}
