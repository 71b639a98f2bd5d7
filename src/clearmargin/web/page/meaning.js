/** What a result means where malignant images are as common as the reader says: natural frequencies. */

import { STEPS, inWhole, naturalFrequencies, nearestStep, shareAmong, shiftPrior } from "./chance.js";
import { fill, h, s, whenChanged } from "./dom.js";
import { nouns } from "./format.js";
import { rates, rulesOf } from "./point.js";

const USUAL = 0.1;

/** @typedef {import("./app.js").App} App */

/** The share of malignant that is asked for: the reader's, else that of the model's data. @param {number | null} chosen @param {any} model */
export function prevalenceOf(chosen, model) {
  return chosen ?? (typeof model?.prevalence === "number" ? model.prevalence : USUAL);
}

/** @param {App} app */
export function makeMeaning(app) {
  const slider = h("input", {
    type: "range", id: "prevalence", min: 0, max: STEPS.length - 1, step: 1,
    oninput: () => app.go({ prevalence: STEPS[Number(slider.value)] }, true),
  });
  const output = h("output", { for: "prevalence" });
  const reset = h("button", { type: "button", class: "link", onclick: () => app.go({ prevalence: null }, true) }, "As in its data");
  const main = h("div", { class: "natural" });
  const more = h("p", { class: "tree" });
  const note = h("p", { class: "quiet" });
  const label = h("label", { for: "prevalence" });
  const element = h("section", { class: "meaning", "aria-labelledby": "meaning-title" },
    h("h3", { id: "meaning-title" }, "What this means"),
    h("div", { class: "prevalence" }, label, slider, output, reset), main, more, note);
  const changed = whenChanged();

  /** @param {import("./state.js").State} state @param {import("./state.js").Item} item @param {import("./api.js").Model} model */
  return { element, render(state, item, model) {
    const row = item.answers[model.name];
    changed([row, model, state.route.prevalence], () => draw(row, model, state.route.prevalence));
  } };

  /** @param {import("./api.js").Row | undefined} row @param {import("./api.js").Model} model @param {number | null} chosen */
  function draw(row, model, chosen) {
    element.hidden = !row || row.probability === null;
    if (!row || row.probability === null) return;
    const { format } = app;
    const [one, many] = nouns(model.content);
    const own = typeof model.prevalence === "number" && model.prevalence > 0 && model.prevalence < 1 ? model.prevalence : null;
    const at = prevalenceOf(chosen, model);
    label.textContent = `If so many of the ${many} are malignant`;
    slider.value = String(nearestStep(at));
    slider.setAttribute("aria-valuetext", format.prevalence(at));
    output.textContent = format.prevalence(at);
    reset.textContent = own === null ? "" : `As in its data, ${format.prevalence(own)}`;
    reset.hidden = own === null;
    reset.disabled = chosen === null;
    const share = own === null ? null : shiftPrior(row.probability, own, at);
    const called = row.decision === "malignant" || row.decision === "benign" ? row.decision : null;
    const known = rates(rulesOf(model, row));
    const among = called && known ? shareAmong(called, known.sensitivity, known.specificity, at) : null;
    fill(main, share !== null ? sentence(share, `${many} with this probability`) : among !== null && called ? sentence(among, `${many} called ${called}`) : null);
    more.textContent = called && known ? tree(called, known, at, many) : "";
    note.textContent = [
      own === null
        ? `This model does not say how many of its own images were malignant, so the probability of this ${one} cannot be moved to another share${among === null ? "" : "; above is what its decision means"}.`
        : "",
      `This holds if benign and malignant ${many} look the same there as in the data, and only their shares differ. It counts ${many}, not women: a woman can have many.`,
    ].filter(Boolean).join(" ");
  }

  /** @param {number} share @param {string} which */
  function sentence(share, which) {
    const { n, of } = inWhole(share);
    const count = app.format.count;
    const almost = n === 9999 || (n === 1 && share < 0.00005) ? (n === 1 ? "fewer than" : "more than") : "about";
    return [
      array(Math.min(1, share)),
      h("p", {}, `Of ${count(of)} ${which}, `, h("strong", {}, `${almost} ${count(n)}`), n === 1 ? " is malignant." : " are malignant."),
    ];
  }

  /** @param {"malignant" | "benign"} called @param {{ sensitivity: number, specificity: number }} known @param {number} at @param {string} many */
  function tree(called, known, at, many) {
    const n = naturalFrequencies(known.sensitivity, known.specificity, at, at < 0.01 ? 10000 : 1000);
    const count = app.format.count;
    return called === "malignant"
      ? `Of ${count(n.of)} ${many}, ${count(n.malignant)} are malignant, and ${count(n.found)} of these are called malignant. So are ${count(n.alarms)} of the ${count(n.benign)} benign ones.`
      : `Of ${count(n.of)} ${many}, ${count(n.benign)} are benign, and ${count(n.spared)} of these are called benign. So are ${count(n.missed)} of the ${count(n.malignant)} malignant ones.`;
  }
}

/** A hundred images, as many of them malignant; said in words beside it. @param {number} share */
function array(share) {
  const filled = Math.round(share * 100);
  const dots = Array.from({ length: 100 }, (_, at) => {
    const [x, y] = [6 + (at % 20) * 12, 6 + Math.floor(at / 20) * 12];
    return at < filled
      ? s("path", { class: "yes", d: `M${x} ${y - 5}l5 5-5 5-5-5Z` })
      : s("circle", { class: "no", cx: x, cy: y, r: 3.4 });
  });
  return s("svg", { class: "array", viewBox: "0 0 240 60", "aria-hidden": "true" }, dots);
}
