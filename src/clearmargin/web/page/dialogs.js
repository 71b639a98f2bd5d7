/** What lies over the page: model card, figures, intended use, help, and the question for a token. */

import { fill, h } from "./dom.js";
import * as memory from "./memory.js";
import { problemOf } from "./problems.js";
import { OVER } from "./route.js";
import { safeHtml } from "./safe.js";
import { currentModel } from "./state.js";

const TITLES = { card: "Model card", figures: "Figures", use: "Intended use", help: "Help" };

/** Keys, and what each does. */
export const KEYS = [
  ["j k ↓ ↑", "next and previous image"],
  ["Enter", "to the chosen image"],
  ["Esc", "back to the table, or close what is open"],
  ["o", "choose images"],
  ["/", "find a name"],
  ["m", "map on or off"],
  ["c", "compare the models"],
  ["?", "this help"],
];

/** @typedef {import("./app.js").App} App */

/** @param {App} app */
export function makeDialogs(app) {
  const title = h("h2", { id: "over-title" });
  const close = h("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => app.closeOver() }, "×");
  const content = h("div", { class: "content", tabindex: 0, role: "region", "aria-labelledby": "over-title" });
  const dialog = h("dialog", { class: "over", "aria-labelledby": "over-title", onclose: () => dialog.open || app.closeOver() },
    h("header", {}, title, close), content);
  dialog.addEventListener("click", (/** @type {MouseEvent} */ event) => event.target === dialog && app.closeOver());
  document.body.append(dialog);
  /** @type {string | null} */
  let drawn = null;
  let turn = 0;

  /** @param {import("./state.js").State} state */
  function render(state) {
    const { view } = state.route;
    const model = currentModel(state);
    if (!OVER.has(view)) {
      drawn = null;
      if (dialog.open) dialog.close();
      return;
    }
    const key = `${view}/${model?.name ?? ""}/${app.theme()}`;
    if (key === drawn) return;
    drawn = key;
    title.textContent = TITLES[/** @type {keyof typeof TITLES} */ (view)] + (model && (view === "card" || view === "figures") ? ` of ${model.name}` : "");
    dialog.dataset.view = view;
    if (view === "use") fill(content, ...useText(state, model));
    else if (view === "help") fill(content, ...helpText());
    else void load(view, model);
    if (!dialog.open) dialog.showModal();
    content.scrollTop = 0;
  }

  /** @param {string} view @param {import("./api.js").Model | null} model */
  async function load(view, model) {
    const own = ++turn;
    fill(content, h("p", { class: "quiet" }, "Loading…"));
    if (!model) return;
    try {
      const parts = view === "card" ? cardParts(await app.api.card(model.name)) : figureParts(await app.api.figures(model.name));
      if (own === turn) fill(content, ...parts);
    } catch (error) {
      const problem = problemOf(error);
      if (own === turn) fill(content, h("p", { role: "alert" }, `${problem.title}. ${problem.text}`));
    }
  }
  return { render };
}

/** @param {{ html: string }} card */
function cardParts({ html }) {
  return [h("div", { class: "prose" }, safeHtml(html, 2))];
}

/** @param {{ name: string, title: string, caption: string, svg: string }[]} figures */
function figureParts(figures) {
  if (!figures.length) {
    return [h("p", {}, "This bundle was served by itself. The figures are in the folder of the run that made it; serve that folder to see them here.")];
  }
  return [h("div", { class: "plots" }, figures.map(({ title, caption, svg }) =>
    h("figure", {}, h("h3", {}, title), h("img", { src: pictureOf(svg), alt: title, width: 360, height: 290 }), h("figcaption", {}, caption))))];
}

/** An SVG in the page's colours as a picture, in which no script runs. @param {string} svg */
function pictureOf(svg) {
  const style = getComputedStyle(document.documentElement);
  const coloured = svg.replace(/var\((--[a-z-]+)(?:,\s*([^()]*))?\)/g, (_, name, fallback) => style.getPropertyValue(name).trim() || fallback || "currentColor");
  return `data:image/svg+xml;charset=utf-8,${encodeURIComponent(coloured)}`;
}

/** @param {import("./state.js").State} state @param {import("./api.js").Model | null} model */
function useText(state, model) {
  const facts = [["Software", `Clearmargin ${state.version.clearmargin ?? ""}`]];
  if (model) facts.push(["Model", model.name], ["Trained on", model.content ? `images of the kind “${model.content}”` : "a kind of image that it does not name"]);
  if (model?.lineage?.created) facts.push(["Made", String(model.lineage.created).slice(0, 10)]);
  return [
    h("p", { class: "statement" }, model?.intended_use ?? state.version.intended_use ?? ""),
    h("p", {}, "It may be used to study such models, to teach, and to look at its mistakes. A decision here is an answer of one network about one image: it knows neither the patient nor other images, and it can be wrong in ways that its figures do not show."),
    h("p", {}, "Images are sent to the server that sent this page, and to no other. It deletes them when they are decided. File names can name patients: rename files before you show results to others."),
    h("dl", { class: "terms" }, facts.map(([term, text]) => h("div", {}, h("dt", {}, term), h("dd", {}, text)))),
  ];
}

function helpText() {
  const keys = h("input", { type: "checkbox", id: "single-keys", onchange: () => memory.keys.set(keys.checked ? null : "off") });
  keys.checked = memory.keys.get() !== "off";
  const meanings = [
    ["Malignant, benign", "The probability lies at or above the model’s threshold, or below."],
    ["Cannot tell", "It lies where the model was wrong too often. The decision is withheld."],
    ["Refused", "The file cannot be read, or the image is unlike those that the model was trained on."],
    ["Calibrated probability", "Of many images with a probability of four in five, about 80 of 100 were malignant in the data that it was checked on."],
    ["Sensitivity, specificity", "Of malignant images, how many are called malignant; of benign ones, how many benign. The interval says how far chance could have moved the figure."],
    ["Map", "Which places moved this network. The colours are the same for every image of a model. It shows no border of a lesion."],
    ["If so many are malignant", "The same result means less where malignant images are rare. The slider shows by how much."],
  ];
  return [
    h("h3", {}, "What the words mean"),
    h("dl", { class: "terms" }, meanings.map(([term, text]) => h("div", {}, h("dt", {}, term), h("dd", {}, text)))),
    h("h3", {}, "Keys"),
    h("dl", { class: "keys" }, KEYS.map(([key, text]) => h("div", {}, h("dt", {}, key.split(" ").map((each) => h("kbd", {}, each))), h("dd", {}, text)))),
    h("p", {}, h("label", { class: "switch", for: "single-keys" }, keys, h("span", {}, "Single letters are keys"))),
    h("p", {}, h("a", { href: "/docs" }, "The API"), " answers programs in the same way."),
  ];
}

/** The question for the token. @returns {(wrong: boolean) => Promise<string | null>} */
export function makeTokenDialog() {
  /** @type {Promise<string | null> | null} */
  let open = null;
  return (wrong) => (open ??= ask(wrong).finally(() => (open = null)));
}

/** @param {boolean} wrong @returns {Promise<string | null>} */
function ask(wrong) {
  const input = h("input", { type: "password", id: "token", name: "token", required: true, autocomplete: "off", spellcheck: "false",
    "aria-describedby": "token-help" });
  const form = h("form", { method: "dialog" },
    h("h2", { id: "token-title" }, "This server asks for a token"),
    wrong && h("p", { class: "wrong", role: "alert" }, "That token was not accepted."),
    h("label", { for: "token" }, "Token"), input,
    h("p", { class: "quiet", id: "token-help" }, "Whoever started the server has it. It is kept in this tab until you close it."),
    h("div", { class: "buttons" },
      h("button", { type: "button", onclick: () => dialog.close("") }, "Not now"),
      h("button", { type: "submit", class: "primary", value: "given" }, "Go on")));
  const dialog = h("dialog", { class: "token", "aria-labelledby": "token-title" }, form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "given" ? input.value.trim() : null);
    });
    dialog.showModal();
    input.focus();
  });
}
