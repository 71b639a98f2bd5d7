/** What the reader can do: each action changes the state or the address, and nothing on the screen by itself. */

import { makeDeciding } from "./deciding.js";
import { byId } from "./dom.js";
import { makeExplaining } from "./explaining.js";
import { blobOfDataUrl, save, toCsv, toJson } from "./files.js";
import { makePictures } from "./pictures.js";
import { HOME, OVER, formatRoute, parseRoute } from "./route.js";
import { currentModel, itemOf, shownItems, tally } from "./state.js";
import { inWords } from "./table.js";

export const WIDE = matchMedia("(min-width: 62rem)");
const DARK = matchMedia("(prefers-color-scheme: dark)");

/**
 * @param {object} parts
 * @param {import("./api.js").Api} parts.api
 * @param {import("./state.js").Store} parts.store
 * @param {import("./format.js").Format} parts.format
 */
export function makeApp({ api, store, format }) {
  const live = byId("live");
  const announce = (/** @type {string} */ text) => {
    live.textContent = text;
  };
  const redraw = () => store.set(({ drawn }) => ({ drawn: drawn + 1 }));
  const explaining = makeExplaining(api, redraw);
  const pictures = makePictures((item, model) => explaining.promise(item, model, null), redraw);
  const deciding = makeDeciding(api, store, announce);
  /** @type {{ table?: any, detail?: any, compare?: any, choose?: () => void }} */
  const parts = {};
  /** @type {File[]} */
  const early = [];

  const app = {
    api, format, explaining, pictures, deciding, announce, redraw, parts,
    state: store.get,
    theme: () => document.documentElement.dataset.theme ?? (DARK.matches ? "dark" : "light"),

    /** The address of the place where we are, with changes. @param {Partial<import("./route.js").Route>} change */
    address: (change) => formatRoute({ ...store.get().place, ...change }),

    /** @param {Partial<import("./route.js").Route>} change @param {boolean} [quietly] without a step for the back button */
    go(change, quietly = false) {
      const hash = formatRoute({ ...store.get().route, ...change });
      if (hash === location.hash) return;
      if (quietly) history.replaceState(null, "", hash);
      else history.pushState(null, "", hash);
      app.arrive();
    },

    /** The address says where we are. */
    arrive() {
      const route = parseRoute(location.hash);
      const before = store.get();
      store.set({ route, place: OVER.has(route.view) ? { ...route, view: before.place.view, id: before.place.id } : route });
      const model = currentModel(store.get());
      if (!model) return;
      deciding.complete(model.name);
      if (route.view === "compare") for (const { name } of before.models) deciding.complete(name);
      if (currentModel(before)?.name !== model.name) void app.loadExamples();
    },

    closeOver() {
      if (OVER.has(store.get().route.view)) app.go({ view: store.get().place.view, id: store.get().place.id });
    },

    chooseFiles: () => parts.choose?.(),

    /** @param {File[]} files */
    addFiles(files) {
      const model = currentModel(store.get());
      if (!model) early.push(...files); // until it is known which models there are
      if (!model || !files.length) return;
      const first = deciding.add(files, model.name);
      announce(`${format.count(files.length)} files sent.`);
      if (first !== null && (WIDE.matches || files.length === 1)) app.go({ view: "image", id: first });
      else if (store.get().route.view !== "home") app.go({ view: "home", id: null });
    },

    addEarly: () => app.addFiles(early.splice(0)),

    /** @param {{ name: string, blob: Blob }} example */
    addExample({ name, blob }) {
      app.addFiles([new File([blob], /\.\w+$/.test(name) ? name : `${name}.png`, { type: blob.type || "image/png" })]);
    },

    async loadExamples() {
      const model = currentModel(store.get());
      if (!model) return;
      store.set({ examples: null });
      try {
        const found = await api.examples(model.name);
        const examples = await Promise.all(found.map(async (/** @type {any} */ each) => ({ ...each, blob: await app.fetchPicture(each.url) })));
        if (currentModel(store.get())?.name === model.name) store.set({ examples });
      } catch {
        store.set({ examples: [] }); // a page without them is whole
      }
    },

    /** @param {string} url of the API, or a data URL @returns {Promise<Blob>} */
    fetchPicture: async (url) => (url.startsWith("data:") ? blobOfDataUrl(url) : api.blob(url)),

    /** @param {number} id */
    open(id) {
      app.go({ view: "image", id });
    },

    /** @param {"name" | "decision" | "probability"} by ascending, descending, and then as they came */
    sortBy(by) {
      const { sort, descending } = store.get().place;
      if (sort !== by) app.go({ sort: by, descending: by === "probability" }, true);
      else if (descending === (by === "probability")) app.go({ descending: !descending }, true);
      else app.go({ sort: "order", descending: false }, true);
    },

    /** @param {number} by rows */
    move(by) {
      const id = parts.table?.beside(focusedRow() ?? store.get().place.id, by);
      if (id === null || id === undefined) return;
      if (WIDE.matches) app.go({ view: "image", id }, true);
      else redraw();
      queueMicrotask(() => parts.table.focus(id));
    },

    find: () => parts.table?.search.focus(),

    compare() {
      const { place, models } = store.get();
      if (place.id !== null && models.length > 1) app.go({ view: "compare", id: place.id });
    },

    /** One step out. @returns {boolean} whether there was one */
    escape() {
      const { place } = store.get();
      const { id } = place;
      if (place.view === "compare") app.go({ view: "image", id });
      else if (place.view === "image" && id !== null) {
        if (!WIDE.matches) app.go({ view: "home", id: null });
        queueMicrotask(() => parts.table.focus(id));
      } else return false;
      return true;
    },

    /** @param {Partial<import("./state.js").Overlay>} change */
    setOverlay(change) {
      store.set(({ overlay }) => ({ overlay: { ...overlay, ...change } }));
    },

    /** What the table shows, in its order, as the API said it. @param {"csv" | "json"} kind */
    download(kind) {
      const state = store.get();
      const model = currentModel(state);
      if (!model) return;
      const rows = shownItems(state, model.name).map((item) => item.answers[model.name]).filter(Boolean);
      const point = state.batches.map((batch) => batch.runs[model.name]?.point).find(Boolean) ?? null;
      const name = `clearmargin-${model.name}.${kind}`;
      if (kind === "csv") save(name, toCsv(rows), "text/csv");
      else save(name, toJson(model.name, point, rows), "application/json");
    },

    /** @param {number} id */
    dropBatch(id) {
      deciding.drop(id);
      const { place } = store.get();
      if (place.id !== null && !itemOf(store.get(), place.id)) app.go({ view: "home", id: null }, true);
    },

    clear() {
      deciding.clear();
      pictures.clear();
      explaining.clear();
      app.go({ ...HOME, model: store.get().route.model, prevalence: store.get().route.prevalence });
      announce("All results were removed.");
    },

    /** Says what came, once a batch is done. */
    tellResults() {
      const state = store.get();
      const model = currentModel(state);
      if (model) announce(`${format.count(state.items.length)} images: ${inWords(tally(state, model.name), format)}.`);
    },
  };
  return app;
}

/** @typedef {ReturnType<typeof makeApp>} App */

/** The item whose row has the focus. @returns {number | null} */
function focusedRow() {
  const row = document.activeElement?.closest("tr[data-id]");
  return row instanceof HTMLElement ? Number(row.dataset.id) : null;
}
