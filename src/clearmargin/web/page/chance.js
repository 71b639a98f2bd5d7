/** What a probability and a decision mean where malignant images are more or less common. Pure. */

/** Shares of malignant that the slider can choose. */
export const STEPS = [
  0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4,
  0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9,
];

/** The step nearest to a share, on the scale of odds. @param {number} share @returns {number} its place in STEPS */
export function nearestStep(share) {
  const logit = (/** @type {number} */ p) => Math.log(p / (1 - p));
  const bounded = Math.min(Math.max(share, STEPS[0]), STEPS[STEPS.length - 1]);
  let best = 0;
  STEPS.forEach((step, at) => {
    if (Math.abs(logit(step) - logit(bounded)) < Math.abs(logit(STEPS[best]) - logit(bounded))) best = at;
  });
  return best;
}

/**
 * The probability where the share of malignant is another: the odds times the ratio of the odds
 * (Saerens, Latinne and Decaestecker 2002, equation 2.4; `shift_prior` of the package).
 * @param {number} probability @param {number} from @param {number} to shares in (0, 1)
 */
export function shiftPrior(probability, from, to) {
  const malignant = probability * (to / from);
  const benign = (1 - probability) * ((1 - to) / (1 - from));
  return malignant / (malignant + benign);
}

/**
 * What becomes of `of` images at a share of malignant, in whole numbers that add up.
 * @param {number} sensitivity @param {number} specificity @param {number} prevalence @param {number} of
 */
export function naturalFrequencies(sensitivity, specificity, prevalence, of = 1000) {
  const malignant = Math.round(of * prevalence);
  const found = Math.round(malignant * sensitivity);
  const benign = of - malignant;
  const spared = Math.round(benign * specificity);
  return { of, malignant, benign, found, missed: malignant - found, spared, alarms: benign - spared };
}

/**
 * A share as `about n of so many`, the smallest round number of images in which it does not round to none.
 * @param {number} share @returns {{ n: number, of: number }}
 */
export function inWhole(share) {
  for (const of of [100, 1000, 10000]) {
    const n = Math.round(share * of);
    if (n >= 1 && n < of) return { n, of };
  }
  return share < 0.5 ? { n: 1, of: 10000 } : { n: 9999, of: 10000 };
}

/** The share of malignant among images of a decision, by Bayes; null where no image gets it.
 * @param {"malignant" | "benign"} decision @param {number} sensitivity @param {number} specificity @param {number} prevalence */
export function shareAmong(decision, sensitivity, specificity, prevalence) {
  const hit = decision === "malignant" ? sensitivity : 1 - sensitivity;
  const other = decision === "malignant" ? 1 - specificity : specificity;
  const part = hit * prevalence;
  const rest = other * (1 - prevalence);
  return part + rest > 0 ? part / (part + rest) : null;
}
