// Light or dark: the system's choice, or the user's. Runs before the page is drawn, to avoid flicker.
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
try { root.dataset.theme = localStorage.getItem("cbir-theme") || ""; } catch { /* not allowed */ }
if (!root.dataset.theme) delete root.dataset.theme;

addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} mode`);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("cbir-theme", root.dataset.theme); } catch { /* not allowed */ }
    show();
  });
  system.addEventListener("change", show);
  show();
});
