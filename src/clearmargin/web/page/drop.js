/** Files by dropping, choosing and pasting, anywhere on the page. */

import { keepPath } from "./match.js";

/**
 * @param {HTMLElement} page that shows that something may be dropped, by the class `dropping`
 * @param {(files: File[]) => void} take
 */
export function takeFiles(page, take) {
  const input = Object.assign(document.createElement("input"), { type: "file", multiple: true, hidden: true });
  input.id = "files";
  input.setAttribute("aria-label", "Images");
  input.tabIndex = -1;
  document.body.append(input);
  input.addEventListener("change", () => {
    take([...(input.files ?? [])]);
    input.value = "";
  });

  let inside = 0;
  const carries = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files") ?? false;
  const over = (/** @type {number} */ change) => {
    inside = Math.max(0, inside + change);
    page.classList.toggle("dropping", inside > 0);
  };
  document.addEventListener("dragenter", (event) => carries(event) && over(1));
  document.addEventListener("dragleave", (event) => carries(event) && over(-1));
  document.addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    if (event.dataTransfer) event.dataTransfer.dropEffect = "copy";
  });
  document.addEventListener("drop", async (event) => {
    if (!carries(event) || !event.dataTransfer) return;
    event.preventDefault();
    over(-inside);
    take(await filesOf(event.dataTransfer));
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    take(files);
  });
  return () => input.click();
}

/** @param {DataTransfer} transfer @returns {Promise<File[]>} folders too, with all that is in them */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry);
  if (!entries.some((entry) => entry?.isDirectory)) return [...transfer.files];
  /** @type {File[]} */
  const files = [];
  for (const entry of entries) await walk(/** @type {any} */ (entry), files);
  return files;
}

/** @param {any} entry @param {File[]} files */
async function walk(entry, files) {
  if (entry.name.startsWith(".")) return;
  if (entry.isFile) {
    /** @type {File} */
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    keepPath(file, entry.fullPath.replace(/^\//, ""));
    files.push(file);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    /** @type {any[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const each of some) await walk(each, files);
  }
}
