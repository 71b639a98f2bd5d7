/** The keyboard: everything can be done with it. Single letters can be switched off (in the help). */

import * as memory from "./memory.js";

/** @typedef {import("./app.js").App} App */

/** @param {App} app */
export function listenToKeys(app) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return; // Esc closes it, which the browser does
    const target = /** @type {HTMLElement} */ (event.target);
    const writes = target.matches("input:not([type=checkbox]), select, textarea");
    if (event.key === "Escape") {
      if (app.escape()) event.preventDefault();
      return;
    }
    if (writes) return;
    const inTable = Boolean(target.closest("table.results"));
    const action = inTable ? { ...LETTERS, ...ARROWS }[event.key] : LETTERS[event.key];
    if (!action || (event.key.length === 1 && memory.keys.get() === "off")) return;
    event.preventDefault();
    action(app);
  });
}

/** @type {Record<string, (app: App) => void>} */
const LETTERS = {
  j: (app) => app.move(1),
  k: (app) => app.move(-1),
  o: (app) => app.chooseFiles(),
  "/": (app) => app.find(),
  m: (app) => app.setOverlay({ on: !app.state().overlay.on }),
  c: (app) => app.compare(),
  "?": (app) => app.go({ view: "help", id: null }),
};

/** @type {Record<string, (app: App) => void>} */
const ARROWS = {
  ArrowDown: (app) => app.move(1),
  ArrowUp: (app) => app.move(-1),
  Home: (app) => app.move(-Infinity),
  End: (app) => app.move(Infinity),
};
