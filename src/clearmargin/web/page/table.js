/** All results as a table: sorted, filtered, with small pictures; a row is kept while what it says changes. */

import { DECISIONS, WORDS, mark } from "./decisions.js";
import { fill, h, whenChanged } from "./dom.js";
import { counted } from "./format.js";
import { rulesOf } from "./point.js";
import { smallScale } from "./scale.js";
import { currentModel, decisionOf, shownItems, tally } from "./state.js";

const PAGE = 200;
const COLUMNS = /** @type {const} */ ([["name", "Image"], ["decision", "Decision"], ["probability", "Probability"]]);

/** @typedef {import("./app.js").App} App */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Item} Item */

/** @param {App} app */
export function makeTable(app) {
  const body = h("tbody");
  const heads = COLUMNS.map(([name, title]) =>
    h("th", { scope: "col", class: name, "aria-sort": "none" },
      h("button", { type: "button", onclick: () => app.sortBy(name) }, title, h("span", { class: "arrow", "aria-hidden": "true" }))));
  const caption = h("caption", { class: "unseen" });
  const table = h("table", { class: "results" }, caption, h("thead", {}, h("tr", {}, heads)), body);
  const none = h("p", { class: "none", hidden: true }, "No image is like this. ",
    h("button", { type: "button", class: "link", onclick: () => app.go({ decision: "all", name: "" }) }, "Show all"));
  const back = h("button", { type: "button", onclick: () => turn(-1) }, "Earlier");
  const on = h("button", { type: "button", onclick: () => turn(1) }, "Later");
  const which = h("span", {});
  const pager = h("nav", { class: "pager", "aria-label": "Pages of results", hidden: true }, back, which, on);
  const search = h("input", {
    type: "search", id: "find", placeholder: "Find a name", "aria-label": "Show names that contain",
    autocomplete: "off", spellcheck: "false", oninput: () => app.go({ name: search.value }, true),
  });
  const chips = ["all", ...DECISIONS].map((decision) =>
    h("button", { type: "button", class: "chip", "aria-pressed": "false", "data-decision": decision, onclick: () => app.go({ decision }) }));
  const element = h("div", { class: "listing" },
    h("div", { class: "filters" }, h("div", { class: "chips", role: "group", "aria-label": "Show only" }, chips), search),
    table, none, pager);

  /** @type {Map<number, ReturnType<typeof makeRow>>} */
  const rows = new Map();
  const listed = whenChanged();
  let page = 0;
  /** @type {Item[]} */
  let shown = [];
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      const row = rows.get(Number(/** @type {HTMLElement} */ (target).dataset.id));
      if (!isIntersecting || !row || row.seen) continue;
      row.seen = true;
      app.redraw();
    }
  }, { rootMargin: "200px" });

  /** @param {number} by */
  function turn(by) {
    page += by;
    app.redraw();
    element.closest(".pane")?.scrollTo({ top: 0 });
  }

  /** @param {State} state */
  function render(state) {
    const model = currentModel(state);
    if (!model) return;
    const counts = tally(state, model.name);
    chips.forEach((chip) => {
      const decision = chip.dataset.decision;
      const n = decision === "all" ? state.items.length : (counts[decision] ?? 0);
      chip.setAttribute("aria-pressed", String(state.place.decision === decision));
      chip.classList.toggle("zero", n === 0);
      const count = h("span", { class: "n" }, app.format.count(n));
      count.style.minWidth = `${app.format.count(state.items.length).length}ch`; // it does not grow while results come
      fill(chip, decision === "all" ? "All" : mark(decision), count);
    });
    if (document.activeElement !== search) search.value = state.place.name;
    heads.forEach((head, at) => {
      const active = state.place.sort === COLUMNS[at][0];
      head.setAttribute("aria-sort", active ? (state.place.descending ? "descending" : "ascending") : "none");
    });
    shown = shownItems(state, model.name);
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    page = Math.min(Math.max(0, page), pages - 1);
    const visible = shown.slice(page * PAGE, (page + 1) * PAGE);
    listed(visible.map(({ id }) => id), () => place(visible));
    const [first, last] = [page * PAGE + 1, page * PAGE + visible.length];
    pager.hidden = pages < 2;
    which.textContent = `${app.format.count(first)} to ${app.format.count(last)} of ${app.format.count(shown.length)}`;
    back.disabled = page === 0;
    on.disabled = page === pages - 1;
    none.hidden = shown.length > 0 || state.items.length === 0;
    table.hidden = shown.length === 0;
    caption.textContent = `${counted(shown.length, "image", "images", app.format)}, decided by ${model.name}`;
    for (const item of visible) rows.get(item.id)?.render(state, item, model);
  }

  /** @param {Item[]} visible */
  function place(visible) {
    const wanted = new Set(visible.map(({ id }) => id));
    for (const [id, row] of rows) {
      if (wanted.has(id)) continue;
      watcher.unobserve(row.element);
      row.element.remove();
      rows.delete(id);
    }
    const focused = document.activeElement;
    visible.forEach(({ id }, at) => {
      let row = rows.get(id);
      if (!row) {
        rows.set(id, (row = makeRow(app, id)));
        watcher.observe(row.element);
      }
      if (body.children[at] !== row.element) body.insertBefore(row.element, body.children[at] ?? null);
    });
    if (focused instanceof HTMLElement && body.contains(focused)) focused.focus(); // moving a row takes it away
  }

  return {
    element,
    render,
    search,
    /** The item so many rows on from one, turning pages. @param {number | null} id @param {number} by @returns {number | null} */
    beside(id, by) {
      if (!shown.length) return null;
      const at = shown.findIndex((item) => item.id === id);
      const next = at < 0 ? (by > 0 ? 0 : shown.length - 1) : Math.min(shown.length - 1, Math.max(0, at + by));
      page = Math.floor(next / PAGE);
      return shown[next].id;
    },
    /** @param {number} id */
    focus(id) {
      const row = rows.get(id);
      row?.link.focus({ preventScroll: true });
      row?.element.scrollIntoView({ block: "nearest" });
    },
  };
}

/** @param {App} app @param {number} id */
function makeRow(app, id) {
  const picture = h("span", { class: "thumb" });
  const name = h("span");
  const link = h("a", {}, name);
  const verdict = h("td", { class: "decision" });
  const number = h("span", { class: "number" });
  const bar = h("span", { class: "bar" });
  const chance = h("td", { class: "probability" }, number, bar);
  const element = h("tr", { "data-id": id, onclick: (/** @type {MouseEvent} */ event) => {
    if (!(event.target instanceof HTMLAnchorElement) && !event.defaultPrevented) app.open(id);
  } }, h("th", { scope: "row", class: "name" }, h("div", {}, picture, link)), verdict, chance);
  const addressed = whenChanged();
  const said = whenChanged();
  const pictured = whenChanged();

  const row = {
    element, link, seen: false,
    /** @param {State} state @param {Item} item @param {import("./api.js").Model} model */
    render(state, item, model) {
      const answer = item.answers[model.name];
      const decision = decisionOf(state, item, model.name);
      addressed([state.place], () => {
        link.href = app.address({ view: "image", id });
        const current = state.place.id === id;
        element.classList.toggle("current", current);
        if (current) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
      said([item.name, answer, decision, model], () => {
        name.textContent = item.name;
        link.title = item.name;
        fill(verdict, mark(decision), decision === "refused" && h("small", { class: "reason", title: answer?.reason ?? "" }, answer?.reason ?? ""));
        const p = answer?.probability ?? null;
        number.textContent = p === null ? "—" : app.format.probability(p);
        verdict.colSpan = decision === "refused" ? 2 : 1; // the reason needs the room of a probability that is not there
        chance.hidden = decision === "refused";
        fill(bar, p === null ? null : smallScale(p, rulesOf(model, answer)));
        element.dataset.decision = decision;
      });
      if (!row.seen) return;
      const thumbnail = app.pictures.thumbnail(item, model.name);
      pictured([thumbnail?.url], () => {
        fill(picture, thumbnail?.url && h("img", { src: thumbnail.url, alt: "", width: 44, height: 44 }));
        picture.classList.toggle("without", thumbnail?.url === null);
      });
    },
  };
  return row;
}

/** How many have each decision, in words. @param {Record<string, number>} counts @param {import("./format.js").Format} format */
export function inWords(counts, format) {
  return DECISIONS.filter((each) => counts[each])
    .map((each) => `${format.count(counts[each])} ${WORDS[each].toLocaleLowerCase()}`)
    .join(", ");
}
