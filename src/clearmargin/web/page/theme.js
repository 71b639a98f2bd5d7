/** Light or dark before anything is drawn. Not a module: those run only after the page was laid out. */
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("clearmargin.theme");
  } catch {
    theme = null; // storage is switched off
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
