/** One image: the decision, how sure, what that means, where the network looked, how good it is, and what is like it. */

import { WORDS, shape } from "./decisions.js";
import { fill, h, whenChanged } from "./dom.js";
import { makeMeaning } from "./meaning.js";
import { figures, ruleOf, rulesOf } from "./point.js";
import { sentence } from "./problems.js";
import { probabilityScale } from "./scale.js";
import { makeSimilar } from "./similar.js";
import { currentModel, decisionOf, itemOf } from "./state.js";
import { makeViewer } from "./viewer.js";

/** @typedef {import("./app.js").App} App */

/** @param {App} app */
export function makeDetail(app) {
  const back = h("a", { class: "back" }, "All results");
  const name = h("p", { class: "file" });
  const title = h("h2", { class: "verdict", tabindex: -1 });
  const chance = h("div", { class: "chance" });
  const compare = h("a", { class: "button" }, "Compare the models");
  const rule = h("p", { class: "quiet rule" });
  const measured = h("div", {});
  const viewer = makeViewer(app);
  const meaning = makeMeaning(app);
  const similar = makeSimilar(app);
  const point = h("section", { class: "point", "aria-labelledby": "point-title" },
    h("h3", { id: "point-title" }, "How good the model is"), measured, rule);
  const head = h("header", {}, back, h("div", { class: "headline" }, title, compare), name);
  const element = h("article", { class: "detail", "aria-label": "The chosen image" },
    head, h("div", { class: "columns" }, h("div", { class: "left" }, viewer.element, similar.element),
      h("div", { class: "right" }, chance, meaning.element, point)));
  const nothing = h("p", { class: "pick quiet" }, "Choose an image in the table to see more of it.");
  const root = h("div", { class: "pane detail-pane" }, nothing, element);
  const said = whenChanged();
  const counted = whenChanged();

  /** @param {import("./state.js").State} state */
  function render(state) {
    const model = currentModel(state);
    const item = itemOf(state, state.place.id);
    nothing.hidden = Boolean(item);
    element.hidden = !item;
    if (!item || !model) return;
    const row = item.answers[model.name];
    const decision = decisionOf(state, item, model.name);
    back.href = app.address({ view: "home", id: null });
    compare.href = app.address({ view: "compare", id: item.id });
    compare.hidden = state.models.length < 2;
    said([item.name, row, decision, model], () => {
      name.textContent = item.name;
      name.title = item.name;
      title.className = `verdict is-${decision}`;
      fill(title, shape(decision), h("span", {}, WORDS[decision]));
      fill(chance, ...chanceOf(row, decision, model, app));
    });
    const rules = rulesOf(model, row);
    counted([model, rules.inside], () => {
      fill(measured, figures(model, rules, app.format));
      rule.textContent = ruleOf(rules, app.format);
    });
    point.hidden = decision === "pending"; // what comes above it then would move it
    viewer.render(state, item, model);
    meaning.render(state, item, model);
    similar.render(item, model);
  }

  return { element: root, render, title };
}

/** @param {import("./api.js").Row | undefined} row @param {string} decision @param {import("./api.js").Model} model @param {App} app */
export function chanceOf(row, decision, model, app) {
  if (!row) {
    return [h("p", { class: "why" }, decision === "failed" ? "The model was not asked, or did not answer." : "The model is looking at it.")];
  }
  if (row.probability === null) {
    return [
      h("p", { class: "why" }, sentence(row.reason ?? "no reason was given")),
      h("p", { class: "quiet" }, "A model does not know what it was not shown. No probability is given for an image that cannot be read, or is unlike those that it was trained on."),
    ];
  }
  const words = decision === "abstain" ? `The decision is withheld: ${row.reason ?? "too near to the threshold"}.` : row.reason && sentence(row.reason);
  return [
    h("p", { class: "probability" }, h("span", { class: "big" }, app.format.probability(row.probability)),
      h("span", { class: "quiet" }, ` calibrated probability of malignant${row.in_context ? ", its neighbours on the slide counted" : ""}`)),
    probabilityScale(row.probability, rulesOf(model, row), app.format),
    words && h("p", { class: "why" }, words),
  ];
}
