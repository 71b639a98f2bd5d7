/** All that the page knows, in one place. Whoever draws reads it; whoever acts changes it; nothing else does. */

import { HOME } from "./route.js";

/**
 * @typedef {import("./api.js").Row} Row
 * @typedef {{ file: File, member: string | null }} Source where the bytes of an image are
 * @typedef {{ id: number, batch: number, path: string, name: string, source: Source | null, answers: Record<string, Row> }} Item
 * @typedef {"sending" | "waiting" | "job" | "done" | "failed" | "cancelled"} Stage
 * @typedef {{ stage: Stage, done: number, total: number, started: number, until: number, job: string | null,
 *   problem: import("./problems.js").Problem | null, point: any }} Run
 * @typedef {{ id: number, files: File[], runs: Record<string, Run> }} Batch files that came together
 * @typedef {{ on: boolean, opacity: number, method: string | null }} Overlay
 * @typedef {object} State
 * @property {"loading" | "ready" | "failed"} phase
 * @property {import("./problems.js").Problem | null} problem why nothing could be loaded
 * @property {boolean} alive
 * @property {import("./api.js").Model[]} models
 * @property {Record<string, any>} version
 * @property {{ name: string, label: string, blob: Blob }[] | null} examples
 * @property {Item[]} items
 * @property {Batch[]} batches
 * @property {import("./route.js").Route} route
 * @property {import("./route.js").Route} place the last route that is not a view over another
 * @property {Overlay} overlay
 * @property {number} drawn goes up when a picture came that is kept elsewhere
 */

/** @returns {State} */
export function beginning() {
  return {
    phase: "loading", problem: null, alive: true, models: [], version: {}, examples: null, items: [], batches: [],
    route: HOME, place: HOME, overlay: { on: true, opacity: 0.6, method: null }, drawn: 0,
  };
}

/**
 * Holds the state; who listens hears of many changes in one turn once.
 * @param {State} first
 */
export function makeStore(first) {
  let state = first;
  let told = true;
  /** @type {((state: State) => void)[]} */
  const listeners = [];
  return {
    get: () => state,
    /** @param {Partial<State> | ((state: State) => Partial<State>)} change */
    set(change) {
      state = { ...state, ...(typeof change === "function" ? change(state) : change) };
      if (!told) return;
      told = false;
      queueMicrotask(() => {
        told = true;
        for (const listener of listeners) listener(state);
      });
    },
    /** @param {(state: State) => void} listener */
    listen(listener) {
      listeners.push(listener);
    },
  };
}

/** @typedef {ReturnType<typeof makeStore>} Store */

/** The model that answers: the one in the address, or the first. @param {State} state */
export function currentModel(state) {
  return state.models.find((model) => model.name === state.route.model) ?? state.models[0] ?? null;
}

/** @param {State} state @param {number | null} id */
export function itemOf(state, id) {
  return id === null ? null : (state.items.find((item) => item.id === id) ?? null);
}

/** What is said of an item, also while nothing is. @param {State} state @param {Item} item @param {string} model
 *  @returns {import("./decisions.js").Decision} */
export function decisionOf(state, item, model) {
  const row = item.answers[model];
  if (row) return row.decision;
  const run = state.batches.find((batch) => batch.id === item.batch)?.runs[model];
  return run && (run.stage === "failed" || run.stage === "cancelled") ? "failed" : "pending";
}

const RANK = { malignant: 0, abstain: 1, benign: 2, refused: 3, pending: 4, failed: 5 };

/** The items that the table shows, in their order. @param {State} state @param {string} model @returns {Item[]} */
export function shownItems(state, model) {
  const { decision, name, sort, descending } = state.place;
  const wanted = name.trim().toLocaleLowerCase();
  const items = state.items.filter(
    (item) =>
      (decision === "all" || decisionOf(state, item, model) === decision) &&
      (!wanted || item.name.toLocaleLowerCase().includes(wanted)),
  );
  const sign = descending ? -1 : 1;
  const names = new Intl.Collator(undefined, { numeric: true });
  const chance = (/** @type {Item} */ item) => item.answers[model]?.probability ?? null;
  items.sort((a, b) => {
    if (sort === "probability") {
      const [first, second] = [chance(a), chance(b)];
      if (first !== null && second !== null && first !== second) return sign * (first - second);
      if ((first === null) !== (second === null)) return first === null ? 1 : -1; // without one: always last
    } else if (sort === "name") {
      const order = names.compare(a.name, b.name);
      if (order) return sign * order;
    } else if (sort === "decision") {
      const order = RANK[decisionOf(state, a, model)] - RANK[decisionOf(state, b, model)];
      if (order) return sign * order;
    }
    return sort === "order" ? sign * (a.id - b.id) : a.id - b.id;
  });
  return items;
}

/** How many items have each decision. @param {State} state @param {string} model @returns {Record<string, number>} */
export function tally(state, model) {
  /** @type {Record<string, number>} */
  const counts = {};
  for (const item of state.items) {
    const decision = decisionOf(state, item, model);
    counts[decision] = (counts[decision] ?? 0) + 1;
  }
  return counts;
}
