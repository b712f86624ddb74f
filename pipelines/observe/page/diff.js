"use strict";
// Filters the changes and switches between light and dark; makes no request and no markup.
(() => {
  const root = document.documentElement, button = document.querySelector("#theme"), themes = ["auto", "light", "dark"];
  const next = () => {
    root.dataset.theme = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
    button.textContent = { auto: "Theme", light: "Light", dark: "Dark" }[root.dataset.theme];
  };
  button.addEventListener("click", next);
  const changes = Array.from(document.querySelectorAll("article.change"));
  const text = document.querySelector("#text"), kind = document.querySelector("#kind"), count = document.querySelector("#count");
  const filter = () => {
    const words = text.value.trim().toLowerCase();
    let left = 0;
    for (const change of changes) {
      const tag = { gone: "del", new: "ins" }[kind.value];
      const fits = (!words || change.textContent.toLowerCase().includes(words)) && (!tag || change.querySelector(tag) !== null)
        && (kind.value !== "state" || change.dataset.state === "other");
      change.hidden = !fits;
      left += fits;
    }
    count.textContent = `${left} of ${changes.length}`;
  };
  if (changes.length) {
    text.addEventListener("input", filter);
    kind.addEventListener("input", filter);
    filter();
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select")) return;
    if (event.key === "t") next();
    if (event.key === "/" && changes.length) { event.preventDefault(); text.focus(); }
  });
})();
