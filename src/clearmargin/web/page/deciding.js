/** Files go to the server and rows come back: a few in one request, many as a job that can be watched and cancelled. */

import { ApiError } from "./api.js";
import { matchRows, nameOf, sentName } from "./match.js";
import { problemOf } from "./problems.js";

/** More files than this go as a job. */
export const MOST_AT_ONCE = 50;
const SIMILAR = 4;

/**
 * @param {import("./api.js").Api} api
 * @param {import("./state.js").Store} store
 * @param {(text: string) => void} announce
 */
export function makeDeciding(api, store, announce) {
  /** @type {Map<string, AbortController>} */
  const under = new Map();
  let nextBatch = 1;
  let nextItem = 1;

  /** @param {number} batch @param {string} model @param {Partial<import("./state.js").Run>} change */
  function note(batch, model, change) {
    store.set(({ batches }) => ({
      batches: batches.map((each) =>
        each.id === batch
          ? { ...each, runs: { ...each.runs, [model]: { ...each.runs[model], ...change } } }
          : each,
      ),
    }));
  }

  /** @param {number} id @param {string} model */
  async function run(id, model) {
    const batch = store.get().batches.find((each) => each.id === id);
    if (!batch) return;
    const key = `${id}/${model}`;
    const stop = new AbortController();
    under.set(key, stop);
    const empty = { job: null, problem: null, point: null, until: 0, done: 0, total: batch.files.length };
    note(id, model, { ...empty, stage: "sending", started: Date.now() });
    const form = new FormData();
    for (const file of batch.files) form.append("files", file, nameOf(file));
    const facts = store.get().models.find((each) => each.name === model);
    const query = /** @type {[string, any][]} */ ([["model", model], ["similar", facts?.similar?.available ? SIMILAR : null]]);
    const wait = (/** @type {number} */ seconds) => note(id, model, { stage: "waiting", until: Date.now() + seconds * 1000 });
    try {
      const many = batch.files.length > MOST_AT_ONCE;
      const answer = many ? await asJob(id, model, form, query, stop.signal, wait) : await api.predict(form, query, stop.signal, wait);
      take(id, model, answer.predictions, answer.operating_point);
      note(id, model, { stage: "done" });
    } catch (error) {
      if (stop.signal.aborted) note(id, model, { stage: "cancelled" });
      else if (error instanceof ApiError && named(error.details)) {
        take(id, model, error.details.map(refusal), null);
        note(id, model, { stage: "done" });
      } else {
        const problem = problemOf(error);
        note(id, model, { stage: "failed", problem });
        announce(`${problem.title}. ${problem.text}`);
      }
    } finally {
      under.delete(key);
    }
  }

  /** @param {number} id @param {string} model @param {FormData} form @param {[string, any][]} query
   *  @param {AbortSignal} signal @param {(seconds: number) => void} wait */
  async function asJob(id, model, form, query, signal, wait) {
    const job = await api.startJob(form, query, signal, wait);
    note(id, model, { stage: "job", job: job.id, total: job.total, started: Date.now() });
    const gone = () => void api.cancelJob(job.id).catch(() => undefined);
    signal.addEventListener("abort", gone);
    let state = job.state;
    await api.follow(job.id, (heard) => {
      state = heard.state ?? state;
      note(id, model, { done: heard.done ?? 0, total: heard.total ?? job.total });
    }, signal);
    signal.removeEventListener("abort", gone);
    if (state === "failed") {
      const { error } = await api.job(job.id);
      throw new ApiError(500, "internal", typeof error === "string" ? error : "The job failed.");
    }
    if (state === "cancelled") throw new ApiError(0, "cancelled", "The job was cancelled elsewhere.");
    const answer = await api.results(job.id);
    void api.cancelJob(job.id).catch(() => undefined); // its files are needed no more
    return answer;
  }

  /** Rows become the answers of items; the first answer says which images a zip has.
   *  @param {number} id @param {string} model @param {import("./api.js").Row[]} rows @param {any} point */
  function take(id, model, rows, point) {
    const state = store.get();
    const batch = state.batches.find((each) => each.id === id);
    if (!batch) return;
    const paths = rows.map((row) => row.path);
    const before = state.items.filter((item) => item.batch === id);
    const same = before.length === rows.length && before.every((item, at) => item.path === paths[at]);
    const sources = matchRows(paths, batch.files);
    const after = rows.map((row, at) => ({
      id: same ? before[at].id : nextItem++,
      batch: id,
      path: row.path,
      name: shownName(row.path, sources[at]),
      source: sources[at],
      answers: { ...(same ? before[at].answers : {}), [model]: row },
    }));
    const place = state.items.findIndex((item) => item.batch === id);
    const others = state.items.filter((item) => item.batch !== id);
    others.splice(place < 0 ? others.length : place, 0, ...after);
    store.set({ items: others });
    note(id, model, { point, done: rows.length, total: rows.length });
    if (same || !state.route.id) return;
    const moved = before.findIndex((item) => item.id === state.route.id);
    if (moved >= 0 && after[0]) {
      const route = { ...state.route, id: (after[moved] ?? after[0]).id };
      store.set({ route, place: route });
    }
  }

  return {
    /** @param {File[]} files @param {string} model @returns {number | null} the first new item */
    add(files, model) {
      if (!files.length) return null;
      const id = nextBatch++;
      const first = nextItem;
      const items = files.map((file) => ({
        id: nextItem++, batch: id, path: sentName(file), name: nameOf(file), source: { file, member: null }, answers: {},
      }));
      store.set(({ batches, items: all }) => ({
        batches: [...batches, { id, files, runs: {} }],
        items: [...all, ...items],
      }));
      void run(id, model);
      return first;
    },
    run,
    /** Decides whatever this model has not decided yet. @param {string} model */
    complete(model) {
      for (const batch of store.get().batches) if (!batch.runs[model]) void run(batch.id, model);
    },
    /** @param {number} id @param {string} model */
    cancel(id, model) {
      under.get(`${id}/${model}`)?.abort();
    },
    /** Forgets a batch that came to nothing. @param {number} id */
    drop(id) {
      store.set(({ batches, items }) => ({
        batches: batches.filter((each) => each.id !== id),
        items: items.filter((each) => each.batch !== id),
      }));
    },
    clear() {
      for (const stop of under.values()) stop.abort();
      store.set({ batches: [], items: [] });
    },
  };
}

/** @typedef {ReturnType<typeof makeDeciding>} Deciding */

/** @param {string} path @param {import("./state.js").Source | null} source */
function shownName(path, source) {
  return source && path === sentName(source.file) ? nameOf(source.file) : path;
}

/** @param {any[]} details */
function named(details) {
  return details.length > 0 && details.every((each) => each && typeof each.path === "string");
}

/** What an error says of one file, as a row. @param {any} detail @returns {import("./api.js").Row} */
function refusal(detail) {
  return { path: detail.path, probability: null, decision: "refused", reason: String(detail.reason ?? "cannot be read") };
}
