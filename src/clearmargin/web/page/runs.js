/** What is under way and what went wrong: a line for each batch of files that is not done. */

import { fill, h } from "./dom.js";
import { counted } from "./format.js";
import { currentModel } from "./state.js";

/** @typedef {import("./app.js").App} App */

/** @param {App} app */
export function makeRuns(app) {
  const element = h("div", { class: "runs" });
  /** @type {Map<string, ReturnType<typeof makeLine>>} */
  const lines = new Map(); // what went wrong is a line of its own: the one before would jump to its height

  /** @param {import("./state.js").State} state */
  function render(state) {
    const model = currentModel(state);
    const open = state.batches.filter((batch) => model && batch.runs[model.name] && batch.runs[model.name].stage !== "done");
    const name = model?.name ?? "";
    const keyOf = (/** @type {import("./state.js").Batch} */ { id, runs }) => `${id}/${ended(runs[name])}`;
    const wanted = new Set(open.map(keyOf));
    for (const [key, line] of lines) if (!wanted.has(key)) {
      line.element.remove();
      lines.delete(key);
    }
    for (const batch of open) {
      let line = lines.get(keyOf(batch));
      if (!line) {
        lines.set(keyOf(batch), (line = makeLine(app, batch.id)));
        element.append(line.element);
      }
      line.render(batch, name);
    }
  }
  return { element, render };
}

/** @param {import("./state.js").Run} run */
function ended({ stage }) {
  return stage === "failed" || stage === "cancelled";
}

/** @param {App} app @param {number} id */
function makeLine(app, id) {
  const title = h("p", { class: "title" });
  const text = h("p", { class: "quiet" });
  const bar = h("progress", { "aria-label": "Images decided" });
  const buttons = h("div", { class: "buttons" });
  const details = h("ul", { class: "details" });
  const element = h("section", { class: "run" }, h("div", { class: "words" }, title, text, details), bar, buttons);
  let stage = "";
  let model = "";

  /** @param {import("./state.js").Batch} batch @param {string} name */
  function render(batch, name) {
    const run = batch.runs[name];
    const total = run.total || batch.files.length;
    element.classList.toggle("wrong", run.stage === "failed");
    if (run.stage === "failed" && run.problem) {
      title.textContent = `${run.problem.title}.`;
      text.textContent = [run.problem.text, run.problem.request && `Request ${run.problem.request}.`].filter(Boolean).join(" ");
    } else if (run.stage === "cancelled") {
      title.textContent = "Cancelled.";
      text.textContent = `${counted(total, "file was", "files were", app.format)} not decided.`;
    } else if (run.stage === "waiting") {
      title.textContent = "The server is busy.";
      text.textContent = `Trying again in ${app.format.count(Math.max(0, Math.ceil((run.until - Date.now()) / 1000)))} s.`;
    } else if (run.stage === "job") {
      title.textContent = `${app.format.count(run.done)} of ${counted(total, "image", "images", app.format)} decided`;
      text.textContent = run.done > 2 ? app.format.left(((Date.now() - run.started) / 1000 / run.done) * (total - run.done)) : "working out how long it takes";
    } else {
      title.textContent = `Deciding ${counted(total, "file", "files", app.format)}`;
      text.textContent = app.format.bytes(batch.files.reduce((sum, file) => sum + file.size, 0));
    }
    fill(details, (run.problem?.details ?? []).slice(0, 5).map((detail) => h("li", {}, detail)));
    const going = !ended(run);
    bar.hidden = !going;
    if (run.stage === "job" && run.total) Object.assign(bar, { max: run.total, value: run.done });
    else bar.removeAttribute("value");
    if (stage === run.stage && model === name) return;
    [stage, model] = [run.stage, name];
    const again = run.stage === "cancelled" || run.problem?.again;
    fill(buttons, going
      ? h("button", { type: "button", onclick: () => app.deciding.cancel(id, name) }, "Cancel")
      : [again && h("button", { type: "button", class: "primary", onclick: () => app.deciding.run(id, name) }, "Try again"),
        h("button", { type: "button", onclick: () => app.dropBatch(id) }, "Remove")]);
  }
  return { element, render };
}
