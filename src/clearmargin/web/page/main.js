/** The page, put together: state to screen, and the address, files and keys to actions. */

import { makeApi } from "./api.js";
import { WIDE, makeApp } from "./app.js";
import { makeCompare } from "./compare.js";
import { makeDetail } from "./detail.js";
import { makeDialogs, makeTokenDialog } from "./dialogs.js";
import { byId, fill, h, whenChanged } from "./dom.js";
import { takeFiles } from "./drop.js";
import { makeEmpty } from "./empty.js";
import { makeFormat } from "./format.js";
import { makeHeader } from "./header.js";
import { listenToKeys } from "./keys.js";
import * as memory from "./memory.js";
import { problemOf } from "./problems.js";
import { makeRuns } from "./runs.js";
import { beginning, currentModel, itemOf, makeStore } from "./state.js";
import { makeTable } from "./table.js";

const KNOCK_MS = 4000;

const store = makeStore(beginning());
const api = makeApi({
  token: memory.token,
  askToken: makeTokenDialog(),
  onAlive: (alive) => {
    if (store.get().alive !== alive) store.set({ alive });
  },
});
const app = makeApp({ api, store, format: makeFormat(navigator.languages) });
const header = makeHeader(app);
const empty = makeEmpty(app);
const runs = makeRuns(app);
const table = makeTable(app);
const detail = makeDetail(app);
const compare = makeCompare(app);
const dialogs = makeDialogs(app);
Object.assign(app.parts, { table, detail, compare, choose: takeFiles(document.body, app.addFiles) });

const button = (/** @type {string} */ text, /** @type {() => void} */ onclick, kind = "") => h("button", { type: "button", class: kind, onclick }, text);
const toolbar = h("div", { class: "toolbar" },
  h("h1", {}, "Results"),
  h("div", { class: "buttons" },
    button("Add images", app.chooseFiles, "primary"), button("CSV", () => app.download("csv")),
    button("JSON", () => app.download("json")), button("Print", () => window.print()), button("Clear", app.clear)));
const list = h("section", { class: "pane list-pane", "aria-label": "Results" }, toolbar, table.element);
const banner = h("div");
fill(byId("notices"), banner, runs.element);
const work = h("div", { class: "work" }, list, detail.element);
const loading = h("p", { class: "plain quiet" }, "Asking the server which models it has…");
const failure = h("div", { class: "plain failure", role: "alert" });

const staged = whenChanged();
const bannered = whenChanged();
const arrived = whenChanged();
const finished = whenChanged();

/** @param {import("./state.js").State} state */
function render(state) {
  const comparing = state.place.view === "compare" && itemOf(state, state.place.id) !== null;
  const scene = state.phase === "loading" ? loading : state.phase === "failed" ? failure
    : !state.batches.length ? empty.element : comparing ? compare.element : work;
  header(state);
  staged([scene], () => fill(byId("stage"), scene));
  bannered([state.alive, state.phase], () => drawBanner(state));
  if (scene === empty.element) empty.render(state);
  else if (scene === compare.element) compare.render(state);
  else if (scene === work) {
    const chosen = state.place.view === "image" && itemOf(state, state.place.id) !== null;
    work.classList.toggle("chosen", chosen);
    table.render(state);
    detail.render(state);
  }
  runs.render(state);
  dialogs.render(state);
  focusOn(state, comparing);
  const model = currentModel(state)?.name ?? "";
  const open = state.batches.filter((batch) => batch.runs[model] && batch.runs[model].stage === "done").length;
  finished([open, model], () => open && app.tellResults());
}

/** A view that took the whole place gets the focus. @param {import("./state.js").State} state @param {boolean} comparing */
function focusOn(state, comparing) {
  const { view, id } = state.place;
  arrived([view, id, state.phase], () => {
    document.title = view === "home" || id === null ? "Clearmargin" : `${itemOf(state, id)?.name ?? "Image"} · Clearmargin`;
    if (comparing) compare.title.focus();
    else if (view === "image" && (!WIDE.matches || wantsDetail)) detail.title.focus();
    wantsDetail = false;
  });
}

let wantsDetail = false;
table.element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  if (event.key !== "Enter" || !(event.target instanceof HTMLAnchorElement)) return;
  wantsDetail = true;
  queueMicrotask(() => setTimeout(() => {
    if (wantsDetail) detail.title.focus(); // it was the chosen one already
    wantsDetail = false;
  }));
});

/** @param {import("./state.js").State} state */
function drawBanner(state) {
  if (state.alive || state.phase !== "ready") {
    fill(banner);
    return;
  }
  fill(banner, h("p", { class: "banner", role: "alert" }, h("strong", {}, "The server does not answer. "),
    "Results that are here stay here. This line goes when it is back."));
  void knock();
}

async function knock() {
  while (!store.get().alive) {
    await new Promise((resolve) => setTimeout(resolve, KNOCK_MS));
    if (await api.isAlive()) {
      store.set({ alive: true });
      app.announce("The server is back.");
    }
  }
}

async function load() {
  store.set({ phase: "loading" });
  try {
    const [models, version] = [await api.models(), await api.version()];
    store.set({ phase: "ready", models, version });
    app.arrive();
    app.addEarly();
    void app.loadExamples();
  } catch (error) {
    const problem = problemOf(error);
    fill(failure, h("h1", {}, problem.title), h("p", {}, problem.text), button("Try again", load, "primary"));
    store.set({ phase: "failed", problem });
  }
}

store.listen(render);
addEventListener("hashchange", app.arrive);
addEventListener("popstate", app.arrive);
setInterval(() => {
  if (store.get().batches.some(({ runs: all }) => Object.values(all).some(({ stage }) => stage === "waiting" || stage === "job"))) app.redraw();
}, 1000);
listenToKeys(app);
render(store.get());
void load();
