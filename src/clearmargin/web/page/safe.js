/** HTML of the server as elements of ours: only those that a text needs, without any attribute that could do something. */

const ALLOWED = new Set([
  "P", "H1", "H2", "H3", "H4", "UL", "OL", "LI", "TABLE", "THEAD", "TBODY", "TR", "TH", "TD", "CODE", "PRE", "EM", "STRONG", "B",
  "I", "A", "BR", "HR", "BLOCKQUOTE", "DL", "DT", "DD", "SMALL", "DEL", "SUP", "SUB", "SECTION", "DIV", "SPAN",
]);
const DROPPED = new Set(["SCRIPT", "STYLE", "IFRAME", "OBJECT", "EMBED", "TEMPLATE", "SVG", "MATH", "FORM"]);

/** @param {string} html @param {number} [below] headings go down by so many levels @returns {DocumentFragment} */
export function safeHtml(html, below = 1) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  const whole = document.createDocumentFragment();
  for (const child of parsed.body.childNodes) copy(child, whole, below);
  for (const table of whole.querySelectorAll("table")) {
    const box = document.createElement("div");
    Object.assign(box, { className: "wide", tabIndex: 0 });
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Table");
    table.replaceWith(box);
    box.append(table);
  }
  return whole;
}

/** @param {Node} node @param {Node} into @param {number} below */
function copy(node, into, below) {
  if (node.nodeType === Node.TEXT_NODE) {
    into.appendChild(document.createTextNode(node.textContent ?? ""));
    return;
  }
  if (!(node instanceof Element)) return;
  const name = node.tagName.toUpperCase();
  if (DROPPED.has(name)) return;
  let target = into;
  if (ALLOWED.has(name)) {
    const level = /^H([1-6])$/.exec(name);
    const element = document.createElement(level ? `h${Math.min(6, Number(level[1]) + below)}` : name);
    const href = node.getAttribute("href");
    if (name === "A" && href && /^https?:\/\//i.test(href)) {
      element.setAttribute("href", href);
      element.setAttribute("rel", "noopener noreferrer");
      element.setAttribute("target", "_blank");
    }
    for (const attribute of ["colspan", "rowspan", "scope"]) {
      const value = node.getAttribute(attribute);
      if (value && /^[a-z0-9]+$/.test(value)) element.setAttribute(attribute, value);
    }
    into.appendChild(element);
    target = element;
  }
  for (const child of node.childNodes) copy(child, target, below);
}
