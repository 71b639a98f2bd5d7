/** Before anything was asked: what this is, where to drop images, examples, and how good the model is. */

import { fill, h, s, whenChanged } from "./dom.js";
import { nouns } from "./format.js";
import { figures, rulesOf } from "./point.js";
import { currentModel } from "./state.js";

/** @typedef {import("./app.js").App} App */

/** @param {App} app */
export function makeEmpty(app) {
  const heading = h("h1", {}, "Benign or malignant, and how sure");
  const lead = h("p", { class: "lead" });
  const choose = h("button", { type: "button", class: "primary", onclick: app.chooseFiles }, "Choose images");
  const drop = h("div", { class: "dropzone" },
    s("svg", { class: "tray", viewBox: "0 0 48 48", "aria-hidden": "true" },
      s("path", { d: "M24 6v24m0 0-9-9m9 9 9-9M7 30v9a3 3 0 0 0 3 3h28a3 3 0 0 0 3-3v-9", fill: "none", stroke: "currentColor", "stroke-width": 2 })),
    h("p", { class: "drop-title" }, "Drop images anywhere on this page"),
    h("p", { class: "quiet" }, "PNG, JPEG, TIFF or DICOM, one or many, a folder or a .zip. Or paste one."),
    choose,
    h("p", { class: "quiet private" }, "Images go to the server that sent this page and nowhere else. It does not keep them."),
  );
  const examples = h("section", { class: "examples", "aria-labelledby": "examples-title" });
  const facts = h("section", { class: "facts", "aria-labelledby": "facts-title" });
  const element = h("div", { class: "empty" }, h("div", { class: "intro" }, heading, lead, drop, examples), facts);
  const changed = whenChanged();
  /** @type {string[]} */
  let urls = [];

  /** @param {import("./state.js").State} state */
  function render(state) {
    const model = currentModel(state);
    changed([model, state.examples], () => {
      const many = nouns(model?.content)[1];
      lead.textContent = `The model looks at ${many} and says for each what it finds, with a probability that was checked against known cases. Where it cannot tell, or an image is unlike what it was trained on, it says so.`;
      for (const url of urls) URL.revokeObjectURL(url);
      urls = (state.examples ?? []).map(({ blob }) => URL.createObjectURL(blob));
      fill(examples,
        h("h2", { id: "examples-title" }, "No image at hand?"),
        h("p", { class: "quiet" }, "These are drawn by a program, and show no patient."),
        h("ul", {}, state.examples === null
          ? Array.from({ length: 4 }, () => h("li", {}, h("span", { class: "example blank" })))
          : state.examples.map((example, at) => h("li", {},
            h("button", { type: "button", class: "example", onclick: () => app.addExample(example) },
              h("img", { src: urls[at], alt: "", width: 72, height: 72 }),
              h("span", {}, h("span", { class: "unseen" }, "Drawn image, "), example.label))))),
      );
      if (state.examples?.length === 0) fill(examples);
      fill(facts, model && [
        h("h2", { id: "facts-title" }, "How good is it?"),
        figures(model, rulesOf(model), app.format),
        h("p", { class: "quiet" }, "More in the ", h("a", { href: app.address({ view: "card", id: null }) }, "model card"),
          " and the ", h("a", { href: app.address({ view: "figures", id: null }) }, "figures"), "."),
      ]);
    });
  }
  return { element, render };
}
