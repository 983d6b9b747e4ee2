// The state of the page, kept in the address bar, with back and forward.

import { format, parse } from "./state.js";

let render = () => {};
let scrolled = () => scrollY;
export let state = parse(location.href);

/** What the index holds: feature spaces and how many pictures; filled by main.js. */
export const index = { spaces: [], pictures: 0, generation: 0 };

/** onChange(state, {scroll}) shows a state; where() is how far it is scrolled, in the same measure. */
export function start(onChange, where) {
  render = onChange;
  scrolled = where;
  history.scrollRestoration = "manual";
  history.replaceState({ ...history.state, scroll: history.state?.scroll ?? 0 }, "");
  addEventListener("popstate", () => {
    state = parse(location.href);
    render(state, { scroll: history.state?.scroll ?? 0 });
  });
  // How far the window was scrolled is kept with the entry, for the way back.
  let timer;
  addEventListener("scroll", () => {
    clearTimeout(timer);
    timer = setTimeout(() => history.replaceState({ ...history.state, scroll: scrolled() }, ""), 120);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-link]");
    if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(parse(link.href));
  });
  render(state, { scroll: history.state.scroll });
}

/** Show another state. replace: it replaces this one in the history. */
export function go(next, { replace = false, keepScroll = false } = {}) {
  const scroll = keepScroll ? scrolled() : 0;
  if (!replace) history.replaceState({ ...history.state, scroll: scrolled() }, "");
  history[replace ? "replaceState" : "pushState"]({ scroll }, "", format(next));
  state = next;
  render(state, { scroll });
}
