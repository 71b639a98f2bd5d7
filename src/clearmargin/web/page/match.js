/** Which file a row of the answer is about. Pure. */

/** Characters of a name that the server keeps, its end. */
const LONGEST = 500;

/** The name under which a file is sent: its path where a folder was dropped. @param {File} file @returns {string} */
export function nameOf(file) {
  return paths.get(file) ?? (file.webkitRelativePath || file.name);
}

/** The name as a form sends it, and as the answer gives it back. @param {File} file @returns {string} */
export function sentName(file) {
  const sent = nameOf(file).replace(/\r\n?|\n/g, "%0D%0A").replaceAll('"', "%22");
  return [...sent].slice(-LONGEST).join("");
}

/** @type {WeakMap<File, string>} */
const paths = new WeakMap();

/** Keeps the path that a dropped folder gives a file. @param {File} file @param {string} path */
export function keepPath(file, path) {
  paths.set(file, path);
}

/**
 * Files of one name are taken in the order in which they were sent.
 * @param {string[]} rows paths of the answer @param {File[]} files as sent
 * @returns {(import("./state.js").Source | null)[]} one for each row
 */
export function matchRows(rows, files) {
  /** @type {Map<string, File[]>} */
  const named = new Map();
  for (const file of files) named.set(sentName(file), [...(named.get(sentName(file)) ?? []), file]);
  const whole = new Map(named);
  return rows.map((path) => {
    const exact = whole.get(path);
    if (exact) {
      if (exact.length > 1) whole.set(path, exact.slice(1));
      return { file: exact[0], member: null };
    }
    for (let at = path.length - 1; at > 0; at--) {
      if (path[at] !== "/" && path[at] !== "#") continue;
      const outer = named.get(path.slice(0, at));
      if (outer) return { file: outer[0], member: path[at] === "/" ? path.slice(at + 1) : null };
    }
    return null;
  });
}
