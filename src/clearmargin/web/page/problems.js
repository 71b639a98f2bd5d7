/** Errors as people understand them: what happened, and what to do. Pure. */

import { ApiError } from "./api.js";

/** @typedef {{ title: string, text: string, again: boolean, request: string | null, details: string[] }} Problem */

const TITLES = /** @type {Record<string, string>} */ ({
  gone: "The server does not answer",
  cut: "The files did not arrive",
  too_large: "Too large",
  too_slow: "The files came too slowly",
  unsupported: "Not an image that can be read",
  unprocessable: "None of these files can be read",
  busy: "The server is busy",
  stopping: "The server is stopping",
  timeout: "This took too long",
  no_space: "The server’s disk is full",
  unauthorized: "A token is needed",
  cross_site: "This page is not where the server expects it",
  not_found: "Not there any more",
  internal: "Something is wrong in the server",
});

const HELP = /** @type {Record<string, string>} */ ({
  gone: "It may have been stopped. Results that are here stay here. Start it again with “clearmargin serve”, then try again.",
  unsupported: "Images are PNG, JPEG, TIFF, BMP, PGM and DICOM files, also inside a .zip.",
  busy: "It has more to do than it may take on at once. Try again in a moment.",
});

const FOREVER = new Set(["too_large", "unsupported", "unprocessable", "cross_site"]);

/** @param {unknown} error @returns {Problem} */
export function problemOf(error) {
  if (!(error instanceof ApiError)) {
    return { title: "Something is wrong in this page", text: String(error), again: true, request: null, details: [] };
  }
  const help = HELP[error.code];
  const message = error.code === "gone" ? "" : error.message;
  return {
    title: TITLES[error.code] ?? "This did not work",
    text: [message && sentence(message), help].filter(Boolean).join(" "),
    again: !FOREVER.has(error.code),
    request: error.requestId,
    details: error.details.map(wordsOf).filter(Boolean),
  };
}

/** Messages of the API begin small and may lack their end. @param {string} text */
export function sentence(text) {
  return `${text[0].toLocaleUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}

/** @param {any} detail of an error, a text or an object with a path and a reason @returns {string} */
function wordsOf(detail) {
  if (typeof detail === "string") return detail;
  const reason = detail?.reason ?? detail?.message ?? detail?.msg ?? "";
  const name = detail?.path ?? detail?.file ?? detail?.name;
  return name ? `${name}: ${reason}` : String(reason);
}
