"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  root.classList.add("scripted");

  // Light and dark: the system's choice until the button is pressed, then the reader's.
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const nameTheme = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} colours`);
  };
  try { root.dataset.theme = localStorage.getItem("cbir-theme") || ""; } catch { /* not allowed from disk */ }
  if (!root.dataset.theme) delete root.dataset.theme;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("cbir-theme", root.dataset.theme); } catch { /* not allowed from disk */ }
    nameTheme();
  });
  system.addEventListener("change", nameTheme);
  nameTheme();

  // Images: each is stored once; the img elements of the shown direction get it as their source.
  const images = read("images");
  const fill = (panel) => all("img[data-image]", panel).forEach((img) => {
    if (!img.src && images[img.dataset.image]) img.src = images[img.dataset.image];
  });

  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value;
  const { ranks, values } = read("curve-values");
  const slider = document.getElementById("rank");

  const readCurves = () => {
    if (!slider) return;
    const position = Number(slider.value);
    const shown = values[chosen("direction")]?.[chosen("metric")] || {};
    document.getElementById("rank-out").textContent = ranks[position].toLocaleString("en");
    slider.setAttribute("aria-valuetext", `k = ${ranks[position]}`);
    all("[data-line]").forEach((cell) => {
      const value = shown[cell.dataset.line]?.[position];
      cell.textContent = value == null ? "" : value.toFixed(3);
      cell.closest("li").hidden = !(cell.dataset.line in shown);
    });
    all("#curves .cursor").forEach((line) => { line.style.left = `${100 * axisFraction(position)}%`; });
  };
  const axisFraction = (position) => Math.log(ranks[position]) / Math.log(Math.max(ranks[ranks.length - 1], 2));

  const show = () => {
    const direction = chosen("direction");
    const metric = chosen("metric");
    all(".panel").forEach((panel) => {
      const isShown = panel.dataset.direction === direction;
      panel.classList.toggle("shown", isShown);
      if (isShown) fill(panel);
    });
    all(".metric").forEach((panel) => panel.classList.toggle("shown", panel.dataset.metric === metric));
    readCurves();
  };

  all("#curves .plot").forEach((plot) => {
    const cursor = document.createElement("div");
    cursor.className = "cursor";
    plot.append(cursor);
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const pointed = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      let nearest = 0;
      ranks.forEach((_, position) => {
        if (Math.abs(axisFraction(position) - pointed) < Math.abs(axisFraction(nearest) - pointed)) nearest = position;
      });
      slider.value = nearest;
      readCurves();
    });
  });
  slider?.addEventListener("input", readCurves);
  all('input[name="direction"], input[name="metric"]').forEach((input) => input.addEventListener("change", show));
  show();
})();
