/** Files to keep: predictions for machines, with dots and without anything of the reader's language. */

const COLUMNS = ["path", "patient_id", "slide_id", "x", "y", "probability", "decision", "reason"];

/** @typedef {import("./api.js").Row} Row */

/** @param {Row[]} rows @returns {string} the columns of `clearmargin predict --format csv` */
export function toCsv(rows) {
  const lines = rows.map((row) => COLUMNS.map((name) => cell(/** @type {any} */ (row)[name])).join(","));
  return [COLUMNS.join(","), ...lines, ""].join("\n");
}

/** @param {string} model @param {unknown} point @param {Row[]} rows as the API answered @returns {string} */
export function toJson(model, point, rows) {
  return `${JSON.stringify({ model, operating_point: point, predictions: rows }, null, 1)}\n`;
}

/** @param {unknown} value */
function cell(value) {
  if (value === null || value === undefined) return "";
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Hands a file to the reader. @param {string} name @param {Blob | string} content @param {string} [type] */
export function save(name, content, type = "text/plain") {
  const blob = typeof content === "string" ? new Blob([content], { type: `${type};charset=utf-8` }) : content;
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser reads it after the click
}

/** The bytes of a data URL; fetching one is not allowed here. @param {string} url @returns {Blob} */
export function blobOfDataUrl(url) {
  const [head, body] = url.split(",", 2);
  const type = /^data:([^;,]*)/.exec(head)?.[1] ?? "";
  const text = /;base64$/i.test(head) ? atob(body) : decodeURIComponent(body);
  return new Blob([Uint8Array.from(text, (letter) => letter.charCodeAt(0))], { type });
}
