/** The training images that the network finds most like this one, where the bundle carries any. */

import { mark } from "./decisions.js";
import { fill, h, whenChanged } from "./dom.js";

/** @typedef {import("./app.js").App} App */

/** @param {App} app */
export function makeSimilar(app) {
  const list = h("ol", { class: "cases" });
  const element = h("section", { class: "similar", "aria-labelledby": "similar-title" },
    h("h3", { id: "similar-title" }, "Most similar training images"),
    list,
    h("p", { class: "quiet" }, "As the network sees them, nearest first: 0 is the same, 1 has nothing to do with it. How alike two images look is something else."));
  const changed = whenChanged();
  /** @type {Map<string, string>} */
  const pictures = new Map();

  /** @param {HTMLImageElement} image @param {string} url */
  async function show(image, url) {
    let own = pictures.get(url);
    if (!own) {
      const blob = await app.fetchPicture(url).catch(() => null);
      if (!blob) return;
      pictures.set(url, (own = URL.createObjectURL(blob)));
    }
    image.src = own;
    image.hidden = false;
  }

  /** @param {import("./state.js").Item} item @param {import("./api.js").Model} model */
  return { element, render(item, model) {
    const cases = item.answers[model.name]?.similar ?? null;
    changed([cases], () => {
      element.hidden = !cases?.length;
      fill(list, (cases ?? []).map((each) => {
        const image = h("img", { alt: `Training image, ${each.label}`, width: 88, height: 88, hidden: true });
        if (each.thumbnail) void show(image, each.thumbnail);
        return h("li", {},
          h("span", { class: "case-picture" }, image),
          mark(each.label),
          h("span", { class: "quiet" }, `distance ${app.format.short(each.distance)}`),
          each.patient_id && h("span", { class: "quiet id", title: each.patient_id }, each.patient_id),
          each.same_patient === true && h("span", { class: "same" }, "same patient"));
      }));
    });
  } };
}
