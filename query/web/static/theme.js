// Before the first paint, so that a dark page never flashes white.
"use strict";
(() => {
  try {
    const chosen = localStorage.getItem("diffsim-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // no storage: the system's choice stands
  }
})();
