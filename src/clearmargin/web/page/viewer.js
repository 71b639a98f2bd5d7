/** The image, and over it the map of what moved the network: on one fixed scale, which is drawn below. */

import { fill, h, whenChanged } from "./dom.js";
import { problemOf } from "./problems.js";
import { save, blobOfDataUrl } from "./files.js";

/** Colours of `explanation/draw.py`, from zero to full. */
const WARM = [[255, 214, 110], [247, 127, 20], [189, 0, 38]];
const COOL = [[158, 220, 255], [46, 144, 222], [20, 45, 140]];
const GREY = 127;

/** @typedef {import("./app.js").App} App */

/** @param {App} app */
export function makeViewer(app) {
  const base = h("img", { class: "base", alt: "" });
  const layer = h("img", { class: "layer", alt: "" });
  const state_ = h("p", { class: "state" });
  const frame = h("div", { class: "frame" }, base, layer, state_);
  const on = h("input", { type: "checkbox", id: "map-on", onchange: () => app.setOverlay({ on: on.checked }) });
  const opacity = h("input", {
    type: "range", id: "map-opacity", min: 0, max: 100, step: 5,
    oninput: () => app.setOverlay({ opacity: Number(opacity.value) / 100 }),
  });
  const method = h("select", { id: "map-method", onchange: () => app.setOverlay({ method: method.value }) });
  const legend = h("div", { class: "legend" });
  const keep = h("button", { type: "button", class: "link" }, "Save picture");
  const controls = h("div", { class: "controls" },
    h("label", { class: "switch", for: "map-on" }, on, h("span", {}, "Map")),
    h("label", { class: "opacity", for: "map-opacity" }, h("span", {}, "Strength"), opacity),
    h("label", { class: "method", for: "map-method" }, h("span", {}, "Method"), method));
  const element = h("figure", { class: "viewer" }, frame, controls, legend);
  const changed = whenChanged();
  const listed = whenChanged();
  const legended = whenChanged();

  /** @param {import("./state.js").State} state @param {import("./state.js").Item} item @param {import("./api.js").Model} model */
  return { element, render(state, item, model) {
    const row = item.answers[model.name];
    const decided = row != null && row.probability !== null;
    const { overlay } = state;
    const wanted = model.methods?.some((/** @type {any} */ each) => each.name === overlay.method) ? overlay.method : null;
    const answer = decided && item.source ? app.explaining.answer(item, model.name, wanted) : null;
    const shown = answer?.explained ?? null;
    const map = shown?.maps?.[0] ?? null;
    const large = shown ? null : app.pictures.large(item);
    const source = shown?.image ?? large?.url ?? null;

    listed([model], () => {
      fill(method, (model.methods ?? []).map((/** @type {any} */ each) => h("option", { value: each.name }, each.title)));
    });
    method.value = wanted ?? model.methods?.[0]?.name ?? "";
    changed([source, map], () => {
      if (source) base.src = source;
      base.hidden = !source;
      base.alt = source ? `The image ${item.name}` : "";
      if (map) layer.src = map.layer;
      layer.alt = map ? `Map: which places moved the network, by ${map.title}` : "";
      layer.hidden = !map;
    });
    const visible = Boolean(map) && overlay.on;
    layer.classList.toggle("off", !visible);
    frame.classList.toggle("mapped", visible);
    layer.style.opacity = String(overlay.opacity);
    on.checked = overlay.on;
    opacity.value = String(Math.round(overlay.opacity * 100));
    opacity.setAttribute("aria-valuetext", app.format.percent(overlay.opacity));
    for (const control of [on, opacity, method]) control.disabled = !decided || !item.source;
    state_.textContent = words(row, answer, source, item);
    legended([map, decided, model, method.value], () => drawLegend(map, decided, model.methods?.find((/** @type {any} */ each) => each.name === method.value)));
    keep.onclick = () => map && save(`${stem(item.name)}_${map.method}.png`, blobOfDataUrl(map.picture));
  } };

  /** Of the method, so that its room is kept while the map is drawn. @param {import("./api.js").ShownMap | null} map
   *  @param {boolean} decided @param {any} facts */
  function drawLegend(map, decided, facts) {
    if (!decided || !facts) {
      fill(legend, h("p", { class: "quiet" }, "A map is drawn of an image that was decided."));
      return;
    }
    const { signed, unit, has_scale: own } = facts;
    const full = map?.scale.saturation;
    const number = (/** @type {number} */ sign) => (full === undefined ? "\u2007" : app.format.short(sign * full));
    const bar = h("canvas", { width: 220, height: 1, class: "ramp", role: "img",
      "aria-label": signed ? "Colours from dark blue, towards benign, to dark red, towards malignant" : "Colours from none to dark red, towards malignant" });
    paint(bar, signed);
    keep.disabled = !map?.picture;
    fill(legend,
      h("div", { class: "ramp-box" }, bar,
        h("div", { class: "ends" }, signed && h("span", {}, number(-1)), h("span", {}, app.format.short(0)), h("span", {}, number(1)))),
      h("p", { class: "quiet" }, signed ? "Red speaks for malignant, blue for benign. " : "Red speaks for malignant. ",
        `Unit: ${unit}. The same colour is the same value in every image of this model. `,
        own ? "" : "The scale is that of drawn images: the model has none of its own. ",
        "Evidence for this network, not for disease. ", keep));
  }
}

/** @param {import("./api.js").Row | undefined} row @param {import("./explaining.js").Answer | null} answer
 *  @param {string | null} source @param {import("./state.js").Item} item */
function words(row, answer, source, item) {
  if (answer?.waiting) return "Drawing the map…";
  if (answer?.error) return `No map: ${problemOf(answer.error).text || problemOf(answer.error).title}`;
  if (source) return "";
  if (!row) return "";
  return item.source ? "This browser cannot show the file." : "The file is not at hand.";
}

/** The name of a file without folders and ending. @param {string} name */
export function stem(name) {
  return (name.split(/[/#]/).pop() ?? name).replace(/\.[^.]*$/, "") || "image";
}

/** @param {HTMLCanvasElement} canvas @param {boolean} signed */
function paint(canvas, signed) {
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const pixels = context.createImageData(canvas.width, 1);
  for (let x = 0; x < canvas.width; x++) {
    const at = x / (canvas.width - 1);
    const value = signed ? 2 * at - 1 : at;
    const size = Math.abs(value);
    const ramp = value < 0 ? COOL : WARM;
    const [from, to, part] = size < 0.5 ? [ramp[0], ramp[1], 2 * size] : [ramp[1], ramp[2], 2 * size - 1];
    const cover = Math.min(1, 1.4 * size);
    for (let band = 0; band < 3; band++) {
      pixels.data[4 * x + band] = GREY * (1 - cover) + (from[band] + (to[band] - from[band]) * part) * cover;
    }
    pixels.data[4 * x + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}
