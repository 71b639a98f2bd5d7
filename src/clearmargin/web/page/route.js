/** Where the reader is, as the part of the address behind #: can be bookmarked, and the back button works. Pure. */

/**
 * @typedef {object} Route
 * @property {"home" | "image" | "compare" | "card" | "figures" | "use" | "help"} view
 * @property {number | null} id of the image of `image` and `compare`
 * @property {string | null} model
 * @property {string} decision that is shown in the table, or `all`
 * @property {string} name that files shown in the table contain
 * @property {"order" | "name" | "decision" | "probability"} sort
 * @property {boolean} descending
 * @property {number | null} prevalence
 */

const VIEWS = ["home", "image", "compare", "card", "figures", "use", "help"];
const SORTS = ["order", "name", "decision", "probability"];
const DECIDED = ["all", "malignant", "benign", "abstain", "refused"];

/** Views that lie over another one. */
export const OVER = new Set(["card", "figures", "use", "help"]);

/** @type {Route} */
export const HOME = {
  view: "home", id: null, model: null, decision: "all", name: "", sort: "order", descending: false, prevalence: null,
};

/** Whatever does not make sense is as if it was not there. @param {string} hash with or without # @returns {Route} */
export function parseRoute(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?", 2);
  const [, view = "", id = ""] = path.split("/");
  const asked = new URLSearchParams(query);
  const prevalence = Number(asked.get("prevalence"));
  const number = /^[0-9]{1,9}$/.test(id) ? Number(id) : null;
  const known = VIEWS.includes(view) ? /** @type {Route["view"]} */ (view) : "home";
  const needs = known === "image" || known === "compare";
  return {
    view: needs && number === null ? "home" : known,
    id: needs ? number : null,
    model: asked.get("model"),
    decision: among(DECIDED, asked.get("decision")),
    name: asked.get("name") ?? "",
    sort: /** @type {Route["sort"]} */ (among(SORTS, asked.get("sort"))),
    descending: asked.get("order") === "descending",
    prevalence: prevalence > 0 && prevalence < 1 ? prevalence : null,
  };
}

/** @param {Route} route @returns {string} from # on */
export function formatRoute(route) {
  const query = new URLSearchParams();
  if (route.model) query.set("model", route.model);
  if (route.decision !== HOME.decision) query.set("decision", route.decision);
  if (route.name) query.set("name", route.name);
  if (route.sort !== HOME.sort) query.set("sort", route.sort);
  if (route.descending) query.set("order", "descending");
  if (route.prevalence !== null) query.set("prevalence", String(route.prevalence));
  const place = route.view === "home" ? "" : route.id === null ? route.view : `${route.view}/${route.id}`;
  const text = query.toString();
  return `#/${place}${text ? `?${text}` : ""}`;
}

/** @param {string[]} values @param {string | null} value */
function among(values, value) {
  return value !== null && values.includes(value) ? value : values[0];
}
