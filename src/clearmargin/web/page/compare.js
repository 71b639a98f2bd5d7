/** One image under all models, side by side. */

import { WORDS, shape } from "./decisions.js";
import { chanceOf } from "./detail.js";
import { fill, h } from "./dom.js";
import { figures, rulesOf } from "./point.js";
import { decisionOf, itemOf } from "./state.js";

/** @typedef {import("./app.js").App} App */

/** @param {App} app */
export function makeCompare(app) {
  const back = h("a", { class: "back" }, "Back to the image");
  const title = h("h2", { tabindex: -1 }, "The same image, every model");
  const name = h("p", { class: "file" });
  const verdict = h("p", { class: "agree" });
  const columns = h("ul", { class: "models" });
  const note = h("p", { class: "quiet" },
    "Each model has its own threshold and its own colours: compare decisions, not shades. That two models agree does not make them right.");
  const element = h("article", { class: "pane compare" }, back, title, name, verdict, columns, note);

  /** @param {import("./state.js").State} state */
  function render(state) {
    const item = itemOf(state, state.place.id);
    if (!item) return;
    back.href = app.address({ view: "image", id: item.id });
    name.textContent = item.name;
    const decisions = state.models.map((model) => decisionOf(state, item, model.name));
    const open = decisions.filter((each) => each === "pending").length;
    const kinds = new Set(decisions);
    verdict.textContent = open ? `${open} of ${decisions.length} are still deciding.`
      : kinds.size === 1 ? `${decisions.length === 2 ? "Both" : `All ${decisions.length}`} say the same: ${WORDS[decisions[0]].toLocaleLowerCase()}.` : "They do not agree.";
    fill(columns, state.models.map((model, at) => column(state, item, model, decisions[at])));
  }

  /** @param {import("./state.js").State} state @param {import("./state.js").Item} item @param {import("./api.js").Model} model
   *  @param {import("./decisions.js").Decision} decision */
  function column(state, item, model, decision) {
    const row = item.answers[model.name];
    const decided = row != null && row.probability !== null && item.source;
    const method = model.methods?.some((/** @type {any} */ each) => each.name === state.overlay.method) ? state.overlay.method : null;
    const shown = decided ? app.explaining.answer(item, model.name, method).explained : null;
    const map = shown?.maps?.[0];
    const url = shown?.image ?? app.pictures.large(item).url;
    const layer = map && state.overlay.on && h("img", { class: "layer", src: map.layer, alt: `Map by ${map.title}` });
    if (layer) layer.style.opacity = String(state.overlay.opacity);
    return h("li", {},
      h("h3", {}, model.name),
      h("p", { class: `verdict is-${decision}` }, shape(decision), h("span", {}, WORDS[decision])),
      h("div", { class: "chance" }, ...chanceOf(row, decision, model, app)),
      h("div", { class: `frame${layer ? " mapped" : ""}` }, url && h("img", { class: "base", src: url, alt: `The image as ${model.name} sees it` }), layer),
      figures(model, rulesOf(model, row), app.format));
  }

  return { element, render, title };
}
