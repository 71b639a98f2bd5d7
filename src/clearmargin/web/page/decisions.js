/** The decisions: each a word and a shape, so that none is told by its colour alone. */

import { h, s } from "./dom.js";

/** @typedef {"malignant" | "benign" | "abstain" | "refused" | "pending" | "failed"} Decision */

export const DECISIONS = /** @type {const} */ (["malignant", "benign", "abstain", "refused"]);

export const WORDS = {
  malignant: "Malignant",
  benign: "Benign",
  abstain: "Cannot tell",
  refused: "Refused",
  pending: "Deciding…",
  failed: "Not decided",
};

const SHAPES = {
  malignant: () => [s("path", { d: "M8 .8 15.2 8 8 15.2.8 8Z", fill: "currentColor" })],
  benign: () => [s("circle", { cx: 8, cy: 8, r: 5.6, fill: "none", stroke: "currentColor", "stroke-width": 2.2 })],
  abstain: () => [
    s("rect", { x: 2.1, y: 2.1, width: 11.8, height: 11.8, fill: "none", stroke: "currentColor", "stroke-width": 2 }),
    s("path", { d: "M2 14 14 2v12Z", fill: "currentColor" }),
  ],
  refused: () => [s("path", { d: "m2.5 2.5 11 11m0-11-11 11", stroke: "currentColor", "stroke-width": 2.6 })],
  pending: () => [2.5, 8, 13.5].map((cx) => s("circle", { cx, cy: 8, r: 1.6, fill: "currentColor" })),
  failed: () => [s("path", { d: "M8 2v8m0 3v1.6", stroke: "currentColor", "stroke-width": 2.6 })],
};

/** @param {Decision} decision */
export function shape(decision) {
  return s("svg", { class: `shape ${decision}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, SHAPES[decision]());
}

/** Shape and word. @param {Decision} decision @param {string} [tag] */
export function mark(decision, tag = "span") {
  return h(tag, { class: `decision is-${decision}` }, shape(decision), h("span", {}, WORDS[decision]));
}
