/** The top of the page: which model answers, what can be read about it, light or dark. */

import { byId, fill, h, whenChanged } from "./dom.js";
import * as memory from "./memory.js";
import { currentModel } from "./state.js";

const LINKS = /** @type {const} */ ([
  ["card", "Model card"],
  ["figures", "Figures"],
  ["help", "Help"],
]);
const THEMES = ["system", "light", "dark"];

/** @typedef {import("./app.js").App} App */

/** @param {App} app */
export function makeHeader(app) {
  const chooser = byId("chooser");
  const links = byId("links");
  const changed = whenChanged();
  const placed = whenChanged();

  const select = h("select", {
    id: "model",
    onchange: () => app.go({ model: select.value }),
  });
  const only = h("span", { class: "only" });
  const theme = h("select", {
    "aria-label": "Colours",
    onchange: () => {
      memory.theme.set(theme.value === "system" ? null : theme.value);
      if (theme.value === "system") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = theme.value;
    },
  }, THEMES.map((name) => h("option", { value: name }, `${name[0].toUpperCase()}${name.slice(1)}`)));
  theme.value = memory.theme.get() ?? "system";
  const anchors = LINKS.map(([view, title]) => h("a", { "data-view": view }, title));
  fill(links, anchors);
  fill(byId("theme"), theme);
  const use = byId("use");

  /** @param {import("./state.js").State} state */
  return (state) => {
    changed([state.models], () => {
      const several = state.models.length > 1;
      fill(select, state.models.map(({ name }) => h("option", { value: name }, name)));
      only.textContent = state.models[0]?.name ?? "";
      fill(chooser, several ? [h("label", { for: "model" }, "Model"), select] : [h("span", { class: "unseen" }, "Model: "), only]);
    });
    const model = currentModel(state);
    if (model && select.value !== model.name) select.value = model.name;
    placed([state.route], () => {
      use.href = app.address({ view: "use", id: null });
      anchors.forEach((anchor, at) => {
        anchor.href = app.address({ view: LINKS[at][0], id: null });
        if (state.route.view === LINKS[at][0]) anchor.setAttribute("aria-current", "page");
        else anchor.removeAttribute("aria-current");
      });
    });
  };
}
