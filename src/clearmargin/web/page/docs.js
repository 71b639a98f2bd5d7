/** What the API offers, as its own schema says. */

import { makeApi } from "./api.js";
import { makeTokenDialog } from "./dialogs.js";
import { byId, fill, h } from "./dom.js";
import * as memory from "./memory.js";
import { problemOf } from "./problems.js";

const METHODS = ["get", "post", "put", "delete"];

/** @param {any} schema @param {any} spec @returns {string} */
function kindOf(schema, spec) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map((/** @type {any} */ each) => kindOf(each, spec)).filter((/** @type {string} */ each) => each !== "null").join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.const !== undefined) return String(schema.const);
  if (schema.type === "array") return `list of ${kindOf(schema.items, spec) || "values"}`;
  return schema.type ?? "any";
}

/** @param {string} path @param {string} method @param {any} operation @param {string[]} fields */
function command(path, method, operation, fields) {
  const parts = ["curl"];
  if (memory.token.get()) parts.push('-H "Authorization: Bearer $CLEARMARGIN_TOKEN"');
  if (method !== "get" && method !== "post") parts.push(`-X ${method.toUpperCase()}`);
  for (const field of fields) parts.push(`-F ${field}=@image.png`);
  return `${parts.join(" ")} ${location.origin}${path}`;
}

/** @param {any} spec @param {string} path @param {string} method @param {any} operation */
function drawOperation(spec, path, method, operation) {
  const parameters = operation.parameters ?? [];
  const content = operation.requestBody?.content ?? {};
  const body = content["multipart/form-data"]?.schema;
  const resolved = body?.$ref ? spec.components?.schemas?.[body.$ref.split("/").pop()] : body;
  const fields = Object.keys(resolved?.properties ?? {});
  const ok = Object.entries(operation.responses ?? {}).filter(([status]) => status.startsWith("2"));
  const errors = Object.keys(operation.responses ?? {}).filter((status) => !status.startsWith("2"));
  return h("details", {},
    h("summary", {}, h("b", {}, method.toUpperCase()), h("code", {}, path), h("span", { class: "quiet" }, operation.description?.split("\n")[0] ?? operation.summary ?? "")),
    h("div", { class: "body" },
      operation.description && h("p", {}, operation.description),
      parameters.length > 0 && h("table", {},
        h("thead", {}, h("tr", {}, ["Parameter", "In", "Kind"].map((each) => h("th", { scope: "col" }, each)))),
        h("tbody", {}, parameters.map((/** @type {any} */ each) => h("tr", {}, h("td", {}, each.name), h("td", {}, each.in),
          h("td", {}, `${kindOf(each.schema, spec)}${each.required ? ", required" : ""}`))))),
      fields.length > 0 && h("p", {}, `Fields of the form: ${fields.join(", ")}.`),
      ok.map(([status, answer]) => h("p", {}, `Answers ${status}: ${kindOf(Object.values(/** @type {any} */ (answer).content ?? {})[0]?.schema, spec) || "no content"}.`)),
      errors.length > 0 && h("p", { class: "quiet" }, `Errors, all of one shape: ${errors.join(", ")}.`),
      h("pre", { tabindex: 0 }, h("code", {}, command(path, method, operation, fields)))));
}

/** @param {any} spec */
function draw(spec) {
  const operations = Object.entries(spec.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => /** @type {any} */ (item)[method]).map((method) => drawOperation(spec, path, method, /** @type {any} */ (item)[method])));
  return [
    h("p", {}, spec.info.description),
    h("p", { class: "quiet" }, `Version ${spec.info.version}. Answers are JSON in UTF-8; each has X-Request-ID. Where the server asks for a token, send “Authorization: Bearer TOKEN”.`),
    h("div", {}, operations),
  ];
}

async function load() {
  const api = makeApi({ token: memory.token, askToken: makeTokenDialog() });
  try {
    fill(byId("api"), ...draw(JSON.parse(await (await api.blob("/api/v1/openapi.json")).text())));
  } catch (error) {
    const problem = problemOf(error);
    fill(byId("api"), h("p", { role: "alert" }, `${problem.title}. ${problem.text}`));
  }
}

void load();
