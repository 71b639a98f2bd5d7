/** What the browser keeps: the token in this tab, the theme and the switch of the keys for longer. Never fails. */

/** @param {() => Storage} storage @param {string} name */
function slot(storage, name) {
  /** @type {string | null} */
  let kept = null; // where storage is switched off
  return {
    /** @returns {string | null} */
    get() {
      try {
        return storage().getItem(name) ?? kept;
      } catch {
        return kept;
      }
    },
    /** @param {string | null} value */
    set(value) {
      kept = value;
      try {
        if (value === null) storage().removeItem(name);
        else storage().setItem(name, value);
      } catch {
        // kept for as long as the page is open
      }
    },
  };
}

export const token = slot(() => sessionStorage, "clearmargin.token");
export const theme = slot(() => localStorage, "clearmargin.theme");
export const keys = slot(() => localStorage, "clearmargin.keys");
