/** A probability on a line from 0 to 1, with the threshold and where the decision is withheld. */

import { h, s } from "./dom.js";
import { bandOf } from "./point.js";

const WIDTH = 400;

/** @param {number} p */
const x = (p) => (4 + (WIDTH - 8) * p).toFixed(1);

/**
 * The whole scale with its words.
 * @param {number} probability @param {import("./point.js").Rules} rules @param {import("./format.js").Format} format
 */
export function probabilityScale(probability, rules, format) {
  const { threshold } = rules.point;
  const band = bandOf(rules);
  const words = [
    `Probability ${format.probability(probability)}`,
    typeof threshold === "number" && `malignant from ${format.probability(threshold)} on`,
    band && `cannot tell from ${format.probability(band[0])} to ${format.probability(band[1])}`,
  ].filter(Boolean);
  return h("div", { class: "scale" },
    s("svg", { viewBox: `0 0 ${WIDTH} ${band ? 76 : 56}`, role: "img", "aria-label": `${words.join("; ")}.` },
      s("rect", { class: "track", x: 4, y: 20, width: WIDTH - 8, height: 8, rx: 4 }),
      typeof threshold === "number" &&
        s("rect", { class: "beyond", x: x(threshold), y: 20, width: ((WIDTH - 8) * (1 - threshold)).toFixed(1), height: 8, rx: 4 }),
      band && s("rect", { class: "withheld", x: x(band[0]), y: 20, width: ((WIDTH - 8) * (band[1] - band[0])).toFixed(1), height: 8 }),
      typeof threshold === "number" && s("path", { class: "tick", d: `M${x(threshold)} 14v20` }),
      s("path", { class: "here", d: `M${x(probability)} 18l-6-11h12Z` }),
      ...labels(threshold, band, format)),
  );
}

/** What stands below the line: where malignant begins, and where nothing is decided.
 *  @param {unknown} threshold @param {[number, number] | null} band @param {import("./format.js").Format} format */
function labels(threshold, band, format) {
  const at = (/** @type {number} */ p, /** @type {number} */ y, /** @type {string} */ text) =>
    s("text", { x: x(p), y, "text-anchor": p < 0.3 ? "start" : p > 0.7 ? "end" : "middle" }, text);
  return [
    typeof threshold === "number" && at(threshold, 50, `malignant from ${format.probability(threshold)}`),
    band && at((band[0] + band[1]) / 2, 70, `dashed: cannot tell, ${format.probability(band[0])} to ${format.probability(band[1])}`),
  ];
}

/** The small one of a row; the number stands beside it. @param {number} probability @param {import("./point.js").Rules} rules */
export function smallScale(probability, rules) {
  const { threshold } = rules.point;
  return s("svg", { class: "small-scale", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("path", { class: "track", d: "M0 4h100" }),
    s("path", { class: "filled", d: `M0 4h${(100 * probability).toFixed(1)}` }),
    typeof threshold === "number" && s("path", { class: "tick", d: `M${(100 * threshold).toFixed(1)} 0v8` }));
}
