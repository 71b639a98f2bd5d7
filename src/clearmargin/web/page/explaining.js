/** Explanations, asked for once each and kept. */

import { bytesOf } from "./pictures.js";

/** @typedef {import("./api.js").Explained} Explained */
/** @typedef {{ explained: Explained | null, error: unknown | null, waiting: boolean }} Answer */

const MOST_KEPT = 60;

/**
 * @param {import("./api.js").Api} api
 * @param {() => void} drawn is called when an answer is there
 */
export function makeExplaining(api, drawn) {
  /** @type {Map<string, { answer: Answer, promise: Promise<Explained | null> }>} */
  const kept = new Map();

  /** @param {import("./state.js").Item} item @param {string} model @param {string | null} method */
  function start(item, model, method) {
    const key = `${item.id}/${model}/${method ?? ""}`;
    const found = kept.get(key);
    if (found) {
      kept.delete(key);
      kept.set(key, found); // the last asked for is the last to go
      return found;
    }
    /** @type {Answer} */
    const answer = { explained: null, error: null, waiting: true };
    const promise = ask(item, model, method).then(
      (explained) => {
        Object.assign(answer, { explained, waiting: false });
        drawn();
        return explained;
      },
      (error) => {
        Object.assign(answer, { error, waiting: false });
        drawn();
        throw error;
      },
    );
    promise.catch(() => undefined);
    const entry = { answer, promise };
    kept.set(key, entry);
    if (kept.size > MOST_KEPT) kept.delete(/** @type {string} */ (kept.keys().next().value));
    return entry;
  }

  /** @param {import("./state.js").Item} item @param {string} model @param {string | null} method @returns {Promise<Explained | null>} */
  async function ask(item, model, method) {
    const bytes = await bytesOf(item);
    if (!bytes) return null;
    const form = new FormData();
    form.append("files", bytes, item.name);
    return api.explain(form, [["model", model], ["method", method]]);
  }

  return {
    /** @param {import("./state.js").Item} item @param {string} model @param {string | null} method */
    answer: (item, model, method) => start(item, model, method).answer,
    /** @param {import("./state.js").Item} item @param {string} model @param {string | null} method */
    promise: (item, model, method) => start(item, model, method).promise,
    /** @param {import("./state.js").Item} item @param {string} model @param {string | null} method */
    forget: (item, model, method) => kept.delete(`${item.id}/${model}/${method ?? ""}`),
    clear: () => kept.clear(),
  };
}

/** @typedef {ReturnType<typeof makeExplaining>} Explaining */
