// Small helpers for elements. Text from disk is only ever set as text.

/** An element: h("button.primary", {type: "button", onclick}, "text", child). */
export function h(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "dataset") Object.assign(element.dataset, value);
    else if (key in element && key !== "list" && key !== "form" && typeof value !== "string") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (selector) => document.querySelector(selector);

/** Tell users of screen readers. */
export function say(text) {
  $("#live").textContent = text;
}

export const plural = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

export function bytesText(count) {
  for (const unit of ["bytes", "KB", "MB", "GB"]) {
    if (count < 1024) return unit === "bytes" || count >= 10 ? `${Math.round(count)} ${unit}` : `${count.toFixed(1)} ${unit}`;
    count /= 1024;
  }
  return `${count.toFixed(1)} TB`;
}

export const debounce = (wait, work) => {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), wait);
  };
};

export async function copyText(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    notice(done);
  } catch (error) {
    notice(error.name === "NotAllowedError" ? "The browser does not allow copying here." : error.message, "problem");
  }
}

/** A line below the header that disappears by itself. */
export function notice(text, kind = "") {
  document.querySelectorAll(".toast").forEach((old) => old.remove());
  const toast = h("div.toast", { role: kind === "problem" ? "alert" : "status" }, h("span", {}, text), h("button", { type: "button", "aria-label": "Close", onclick: () => toast.remove() }, "×"));
  if (kind) toast.classList.add(kind);
  (document.querySelector("dialog[open]") ?? document.body).append(toast); // above what is on top
  setTimeout(() => toast.remove(), 9000);
}
