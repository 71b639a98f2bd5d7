/** The REST API: one request, and what its answer means. */

import { readEvents } from "./sse.js";

/**
 * @typedef {{ path: string, patient_id?: string | null, slide_id?: string | null, x?: number | null, y?: number | null,
 *   probability: number | null, decision: "benign" | "malignant" | "abstain" | "refused", reason: string | null, in_context?: boolean,
 *   similar?: Similar[] | null, at_prevalence?: number | null }} Row
 * @typedef {{ patient_id: string | null, label: "benign" | "malignant", distance: number, same_patient: boolean | null,
 *   thumbnail?: string | null }} Similar
 * @typedef {{ value: number | null, ci: [number, number] | null, reason?: string | null }} Figure
 * @typedef {Record<string, any> & { name: string }} Model as docs/serve.md has it
 * @typedef {{ method: string, title: string, unit: string, signed: boolean, scale: { saturation: number }, layer: string,
 *   picture: string }} ShownMap
 * @typedef {{ path: string, width: number, height: number, image: string | null, maps: ShownMap[], reason?: string | null,
 *   decision: string }} Explained
 * @typedef {{ id: string, state: string, done: number, total: number, error?: any,
 *   links: { self: string, events: string, results: string } }} Job
 * @typedef {{ models: Model[], version: Record<string, any> }} About
 */

const BASE = "/api/v1/";
const BUSY_TRIES = 4;
const EVENT_TRIES = 6;

/** A request that was not answered as wished. `status` is 0 where the server did not answer at all. */
export class ApiError extends Error {
  /** @param {number} status @param {string} code @param {string} message
   *  @param {{ requestId?: string | null, details?: any[], retryAfter?: number }} [more] */
  constructor(status, code, message, more = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.requestId = more.requestId ?? null;
    this.details = more.details ?? [];
    this.retryAfter = more.retryAfter ?? 0;
  }
}

/**
 * @param {object} parts
 * @param {{ get(): string | null, set(value: string | null): void }} parts.token
 * @param {(wrong: boolean) => Promise<string | null>} parts.askToken null where the reader gives none
 * @param {(alive: boolean) => void} [parts.onAlive] hears whether the server answers
 */
export function makeApi({ token, askToken, onAlive = () => undefined }) {
  /** @param {string} path @param {{ method?: string, body?: FormData, accept?: string, query?: [string, any][],
   *  headers?: Record<string, string>, signal?: AbortSignal, onWait?: (seconds: number) => void }} [options]
   *  @returns {Promise<Response>} */
  async function ask(path, options = {}) {
    const query = new URLSearchParams((options.query ?? []).filter(([, value]) => value !== null && value !== undefined));
    const url = (path.startsWith("/") ? path : BASE + path) + (query.size ? `?${query}` : "");
    let busy = 0;
    for (;;) {
      const sent = token.get();
      const response = await once(url, options, sent);
      if (response.status === 401) {
        if (token.get() === sent) {
          const given = await askToken(sent !== null);
          if (given === null) throw await errorOf(response);
          token.set(given);
        }
      } else if (response.status === 429 && options.onWait && ++busy < BUSY_TRIES) {
        const seconds = Math.min(60, Math.max(1, Number(response.headers.get("Retry-After")) || 1));
        options.onWait(seconds);
        await wait(seconds, options.signal);
      } else if (response.ok) return response;
      else throw await errorOf(response);
    }
  }

  /** @param {string} url @param {any} options @param {string | null} sent @returns {Promise<Response>} */
  async function once(url, options, sent) {
    const headers = new Headers({ Accept: options.accept ?? "application/json", ...options.headers });
    if (sent) headers.set("Authorization", `Bearer ${sent}`);
    const { method = "GET", body, signal } = options;
    try {
      const response = await fetch(url, { method, body, headers, signal, cache: "no-store", credentials: "omit" });
      onAlive(true);
      return response;
    } catch (error) {
      if (signal?.aborted) throw error;
      if (method !== "GET" && (await isAlive()))
        throw new ApiError(0, "cut", "The server ended the connection before all was sent. The files may be too large for it.");
      onAlive(false);
      throw new ApiError(0, "gone", "The server does not answer.");
    }
  }

  async function isAlive() {
    try {
      return (await fetch(`${BASE}health`, { cache: "no-store", credentials: "omit" })).ok;
    } catch {
      return false;
    }
  }

  /** @param {string} path @param {any} [options] */
  const json = async (path, options) => (await ask(path, options)).json();

  return {
    isAlive,
    version: () => json("version"),
    /** @returns {Promise<Model[]>} */
    models: async () => (await json("models")).models,
    examples: async (/** @type {string} */ model) => (await json("examples", { query: [["model", model]] })).examples,
    card: (/** @type {string} */ model) => json("card", { query: [["model", model]] }),
    figures: async (/** @type {string} */ model) => (await json("figures", { query: [["model", model]] })).figures,
    /** What lies at an address of the API. @param {string} url @returns {Promise<Blob>} */
    blob: async (url) => (await ask(url, { accept: "*/*" })).blob(),
    /** @param {FormData} body @param {[string, any][]} query @param {AbortSignal} signal @param {(seconds: number) => void} onWait
     *  @returns {Promise<{ model: string, operating_point: any, predictions: Row[] }>} */
    predict: (body, query, signal, onWait) => json("predict", { method: "POST", body, query, signal, onWait }),
    /** @param {FormData} body @param {[string, any][]} query @param {AbortSignal} [signal] @returns {Promise<Explained>} */
    explain: async (body, query, signal) =>
      (await json("explain", { method: "POST", body, query, signal, onWait: () => undefined })).explanations[0],
    /** @param {FormData} body @param {[string, any][]} query @param {AbortSignal} signal @param {(seconds: number) => void} onWait
     *  @returns {Promise<Job>} */
    startJob: (body, query, signal, onWait) => json("jobs", { method: "POST", body, query, signal, onWait }),
    /** @param {string} id @returns {Promise<Job>} */
    job: (id) => json(`jobs/${id}`),
    /** @param {string} id */
    results: (id) => json(`jobs/${id}/results`, { query: [["format", "json"]] }),
    /** @param {string} id */
    cancelJob: (id) => ask(`jobs/${id}`, { method: "DELETE" }),
    /**
     * Hears a job until it ends; a connection that breaks is taken up where it was.
     * @param {string} id @param {(progress: { done: number, total: number, state: string }) => void} hear
     * @param {AbortSignal} signal
     */
    async follow(id, hear, signal) {
      /** @type {string | null} */
      let last = null;
      for (let tries = 0; tries < EVENT_TRIES; tries++) {
        try {
          const headers = /** @type {Record<string, string>} */ (last === null ? {} : { "Last-Event-ID": last });
          const { body } = await ask(`jobs/${id}/events`, { accept: "text/event-stream", headers, signal });
          for await (const { event, data, id: number } of readEvents(/** @type {any} */ (body))) {
            last = number ?? last;
            tries = 0;
            hear(JSON.parse(data));
            if (event === "end") return;
          }
        } catch (error) {
          if (signal.aborted || (error instanceof ApiError && error.status !== 0)) throw error;
        }
        await wait(Math.min(8, 2 ** tries), signal);
      }
      throw new ApiError(0, "gone", "The server does not answer.");
    },
  };
}

/** @typedef {ReturnType<typeof makeApi>} Api */

/** @param {Response} response @returns {Promise<ApiError>} */
async function errorOf(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  const requestId = response.headers.get("X-Request-ID");
  try {
    const { error } = await response.json();
    return new ApiError(response.status, error.code, error.message, {
      requestId: error.request_id ?? requestId, details: error.details, retryAfter,
    });
  } catch {
    return new ApiError(response.status, "unknown", `The server answered with status ${response.status}.`, { requestId, retryAfter });
  }
}

/** @param {number} seconds @param {AbortSignal} [signal] @returns {Promise<void>} */
function wait(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
