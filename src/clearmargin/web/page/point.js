/** The operating point: how often the model is right, with intervals, and on what that was measured. */

import { h, s } from "./dom.js";
import { counted } from "./format.js";

/** @typedef {import("./api.js").Model} Model */
/** @typedef {import("./format.js").Format} Format */

/** @typedef {{ point: any, abstention: any, inside: boolean }} Rules what decides; `inside`: among the neighbours in a slide */

/** What decided a row; without one, what decides as a rule. @param {Model} model @param {import("./api.js").Row} [row] @returns {Rules} */
export function rulesOf(model, row) {
  const { context } = model;
  if (context?.operating_point && (row ? row.in_context : context.active)) {
    return { point: context.operating_point, abstention: context.abstention, inside: true };
  }
  return { point: model.operating_point ?? {}, abstention: model.abstention, inside: false };
}

/** Sensitivity and specificity, where they are known. @param {Rules} rules
 *  @returns {{ sensitivity: number, specificity: number } | null} */
export function rates({ point }) {
  const sensitivity = point.sensitivity?.value;
  const specificity = point.specificity?.value;
  return typeof sensitivity === "number" && typeof specificity === "number" ? { sensitivity, specificity } : null;
}

/** @param {Model} model @param {Rules} rules @param {Format} format */
export function figures(model, rules, format) {
  const { point } = rules;
  return h("div", { class: "figures" },
    h("dl", {},
      figure("Sensitivity", "of 100 malignant, so many are called malignant", point.sensitivity, format),
      figure("Specificity", "of 100 benign, so many are called benign", point.specificity, format),
      point.achieved_on === "test" && figure("AUROC", `1 tells all apart, ${format.short(0.5)} is chance`, model.test?.auroc, format, true),
    ),
    h("p", { class: "measured quiet" }, measuredOn(model, rules, format)),
    model.stamp && h("p", { class: "stamp" }, `${model.stamp}.`),
    model.gate && !model.gate.active && h("p", { class: "stamp" }, `Images unlike those of training are not refused: ${model.gate.reason ?? "no gate"}.`),
  );
}

/** @param {string} name @param {string} meaning @param {import("./api.js").Figure | null | undefined} value
 *  @param {Format} format @param {boolean} [plain] a number, not a percentage */
function figure(name, meaning, value, format, plain = false) {
  const shown = (/** @type {number} */ x) => (plain ? format.hundredths(x) : format.percent(x));
  const known = typeof value?.value === "number";
  const ci = value?.ci;
  return h("div", { class: "figure" },
    h("dt", {}, name, h("small", {}, meaning)),
    h("dd", {},
      h("span", { class: "value" }, known ? shown(/** @type {number} */ (value.value)) : "—"),
      known && ci && h("span", { class: "ci" }, `${format.percent(0.95)} interval ${shown(ci[0])} to ${shown(ci[1])}`),
      !known && h("span", { class: "ci" }, value?.reason ?? "not known"),
      range(known ? /** @type {number} */ (value?.value) : null, ci ?? null)),
  );
}

/** The interval on a line from 0 to 1; said in words beside it. @param {number | null} value @param {[number, number] | null} ci */
function range(value, ci) {
  const x = (/** @type {number} */ p) => 2 + 196 * p;
  return s("svg", { class: "range", viewBox: "0 0 200 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("path", { class: "axis", d: "M2 5h196" }),
    ci && s("path", { class: "band", d: `M${x(ci[0]).toFixed(1)} 5H${x(ci[1]).toFixed(1)}` }),
    value !== null && s("path", { class: "dot", d: `M${x(value).toFixed(1)} 0.5v9` }));
}

/** On what the figures were measured. @param {Model} model @param {Rules} rules @param {Format} format */
function measuredOn(model, rules, format) {
  const on = rules.point.achieved_on;
  const { images, patients, split } = model.lineage ?? {};
  if (rates(rules) === null) return "How good this model is was not measured, or is not known here.";
  const where = on === "test" ? "test images that it had not seen" : `the images on which the threshold was chosen (${on ?? "unknown"}), which flatters`;
  const counts = on === "test" && images ? `${counted(images, "image", "images", format)}${patients ? ` of ${counted(patients, "patient", "patients", format)}` : ""}` : "";
  const apart = split === "patient" && on === "test" ? "; none of these patients was in training" : "";
  const how = rules.inside ? "Each patch was decided among its neighbours on the slide. " : "";
  return `${how}Measured on ${where}${counts ? `: ${counts}` : ""}${apart}. Elsewhere it can be worse.`;
}

/** How the threshold was chosen. @param {Rules} rules @param {Format} format */
export function ruleOf(rules, format) {
  const { point } = rules;
  const between = bandOf(rules);
  const from = typeof point.threshold === "number" ? `Malignant from a probability of ${format.probability(point.threshold)} on` : "";
  const withheld = between ? `; from ${format.probability(between[0])} to ${format.probability(between[1])} it cannot tell` : "";
  const rule = point.rule ? ` Chosen on ${point.chosen_on ?? "validation"}: ${point.rule}.` : "";
  return `${from}${withheld}.${rule}`;
}

/** Where the decision is withheld. @param {Rules} rules @returns {[number, number] | null} */
export function bandOf({ abstention }) {
  const between = abstention?.between;
  return Array.isArray(between) && between.length === 2 ? /** @type {[number, number]} */ (between) : null;
}
