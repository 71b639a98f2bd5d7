/** Numbers and words as the reader's language writes them. Pure; files for machines are made in `files.js`. */

const NOUNS = {
  histology: ["tissue image", "tissue images"],
  mammogram: ["mammogram", "mammograms"],
  ultrasound: ["ultrasound image", "ultrasound images"],
  lesion: ["image of a lesion", "images of lesions"],
};

/**
 * @param {readonly string[]} locales of the browser, the most wanted first
 */
export function makeFormat(locales) {
  const number = (/** @type {Intl.NumberFormatOptions} */ options) => new Intl.NumberFormat([...locales], options);
  const whole = number({ maximumFractionDigits: 0 });
  const share = number({ style: "percent", maximumFractionDigits: 1, minimumFractionDigits: 1 });
  const coarse = number({ style: "percent", maximumFractionDigits: 0 });
  const fine = number({ style: "percent", maximumSignificantDigits: 2 });
  const short = number({ maximumSignificantDigits: 3 });
  const hundredths = number({ minimumFractionDigits: 2, maximumFractionDigits: 2 });

  /** A probability; never 0 % or 100 %, which no model can promise. @param {number} p */
  const probability = (p) => {
    if (p < 0.0005) return `< ${share.format(0.001)}`;
    if (p > 0.9995) return `> ${share.format(0.999)}`;
    return share.format(p);
  };

  return {
    probability,
    count: (/** @type {number} */ n) => whole.format(n),
    hundredths: (/** @type {number} */ n) => hundredths.format(n),
    short: (/** @type {number} */ n) => short.format(n),
    percent: (/** @type {number} */ p) => coarse.format(p),
    /** A share of malignant, from thousandths to nearly all. @param {number} p */
    prevalence: (p) => (p < 0.1 ? fine.format(p) : coarse.format(p)),
    bytes: (/** @type {number} */ n) =>
      n < 1024 * 1024 ? `${whole.format(Math.max(1, Math.round(n / 1024)))} KiB` : `${short.format(n / 1024 / 1024)} MiB`,
    /** How long something still takes, in words. @param {number} seconds */
    left: (seconds) => {
      if (seconds < 5) return "a few seconds left";
      if (seconds < 90) return `about ${whole.format(Math.ceil(seconds / 5) * 5)} seconds left`;
      if (seconds < 5400) return `about ${whole.format(Math.ceil(seconds / 60))} minutes left`;
      return `about ${short.format(Math.ceil(seconds / 1800) / 2)} hours left`;
    },
  };
}

/** @typedef {ReturnType<typeof makeFormat>} Format */

/** What one image, and several, of a model are called. @param {string | null | undefined} content @returns {string[]} */
export function nouns(content) {
  return NOUNS[/** @type {keyof typeof NOUNS} */ (content)] ?? ["image", "images"];
}

/** @param {number} n @param {string} one @param {string} many @param {Format} format */
export function counted(n, one, many, format) {
  return `${format.count(n)} ${n === 1 ? one : many}`;
}

/** The words of a list: `a, b and c`. @param {string[]} words */
export function joined(words) {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`;
}
