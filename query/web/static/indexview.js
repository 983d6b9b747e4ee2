// The index: what is in it, what failed and why, what is offline; a run's progress, to start and to stop.

import { get, post, remove } from "./api.js";
import { adding } from "./adding.js";
import { bytesText, h, notice, plural, say } from "./dom.js";

const EVERY_MS = 1000;
const SHOWN = 200;

export function indexView(main) {
  const stop = new AbortController();
  const body = h("div.index", {});
  main.replaceChildren(h("div.head", {}, h("h1", {}, "The index"), h("p.count", {}, "")), body);
  let timer;
  let samples = []; // [time, files waiting], to tell rate and time left
  let shown = "";
  let said = "";

  async function refresh() {
    try {
      const state = await get("/api/index", stop.signal);
      measure(state);
      const text = JSON.stringify(state);
      if (text !== shown) draw(state);
      shown = text;
      timer = setTimeout(refresh, EVERY_MS);
    } catch (error) {
      if (error.name === "AbortError") return;
      notice(error.message, "problem");
      timer = setTimeout(refresh, 5 * EVERY_MS);
    }
  }

  function measure(state) {
    const waiting = Math.max(0, ...state.spaces.map((space) => space.waiting));
    const last = samples.at(-1);
    if (!isRunning(state)) samples = [];
    else if (!last || last[1] !== waiting) samples = [...samples, [performance.now() / 1000, waiting]].slice(-6);
    state.waiting = waiting;
    const [first, now] = [samples[0], samples.at(-1)];
    const rate = samples.length > 1 ? (first[1] - now[1]) / (now[0] - first[0]) : 0;
    state.rate = rate > 0 ? rate : null;
  }

  function draw(state) {
    const focused = document.activeElement?.id;
    const open = new Set([...body.querySelectorAll("details[open]")].map((one) => one.id));
    main.querySelector(".count").textContent = state.bytes === null ? state.path : `${state.path} · ${bytesText(state.bytes)} on disk`;
    body.replaceChildren(...[run(state), folders(state), add.element, spaces(state), failed(state)].filter(Boolean));
    for (const one of body.querySelectorAll("details")) one.open = open.has(one.id) || one.open;
    add.update(state, isRunning(state));
    if (focused) document.getElementById(focused)?.focus();
    const now = state.run?.state ?? "";
    if (now !== said && state.run) say(`Indexing: ${now}.`);
    said = now;
  }

  async function act(work) {
    try {
      await work();
      shown = "";
      clearTimeout(timer);
      await refresh();
    } catch (error) {
      notice(error.message, "problem");
    }
  }
  const start = (root) => act(() => post("/api/runs", { root }));
  const halt = () => act(() => remove("/api/runs/current"));

  function run(state) {
    if (!state.run && !state.writer) return null;
    const running = isRunning(state);
    const prunes = state.run?.task === "prune";
    const names = prunes ? { running: "Pruning", stopping: "Stopping", done: "Pruned", stopped: "Stopped", failed: "Pruning failed" } : { running: "Indexing", stopping: "Stopping", done: "Indexed", stopped: "Stopped; what was done is kept", failed: "Indexing failed" };
    const title = state.run ? (prunes ? names[state.run.state] : `${names[state.run.state]}: ${state.run.folder}`) : `Another program is indexing: ${state.writer}`;
    const total = state.files - state.failures;
    const left = state.rate ? `, ${state.rate.toFixed(1)} pictures/s, about ${timeText(state.waiting / state.rate)} left` : "";
    return h(
      "section.card.run",
      { class: `card run ${state.run?.state ?? "running"}` },
      h("div.card-head", {}, h("h2", {}, title), running && state.run && h("button", { type: "button", id: "stop", disabled: state.run.state === "stopping", onclick: halt }, "Stop")),
      running && !prunes && h("progress", { max: Math.max(1, total), value: total - state.waiting, "aria-label": "Pictures indexed" }),
      running && !prunes && h("p", {}, `${(total - state.waiting).toLocaleString("en")} of ${plural(total, "file")} in every space${left}`),
      state.run?.lines.length ? h("pre.lines", { tabindex: "0", "aria-label": "Messages of the run" }, state.run.lines.join("\n")) : null,
    );
  }

  const add = adding((wanted) => act(() => post("/api/runs", wanted)));

  function folders(state) {
    const running = isRunning(state);
    const row = (root) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, root.folder),
        h("td.number", {}, root.files.toLocaleString("en")),
        h("td.number", {}, root.missing ? root.missing.toLocaleString("en") : "–"),
        h("td", {}, root.offline ? h("span.state.away", {}, `offline: ${root.offline}`) : h("span.state", {}, "available")),
        h("td", {}, h("button", { type: "button", id: `start-${root.id}`, disabled: running || Boolean(root.offline), onclick: () => start(root.id), "aria-label": `Bring up to date: ${root.folder}` }, "Bring up to date")),
      );
    return h(
      "section.card",
      {},
      h("div.card-head", {}, h("h2", {}, "Folders"), state.roots.length > 1 && h("button", { type: "button", id: "start-all", disabled: running, onclick: () => start(null) }, "All of them")),
      state.roots.length
        ? h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Folders" }, h("table.stack", {}, h("thead", {}, h("tr", {}, ["Folder", "Files", "Missing", "State", ""].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, state.roots.map(row))))
        : h("p", {}, "No folder yet; add one below."),
      state.missing
        ? h("div.row", {}, h("p.quiet-text", {}, `${plural(state.missing, "file")} missing; the index keeps what it knows of them until it is pruned.`), h("button", { type: "button", id: "prune", disabled: running, onclick: () => confirm("Forget the missing files? Their pictures are indexed again if they come back. No picture file is touched.") && act(() => post("/api/runs/prune", {})) }, "Prune"))
        : null,
    );
  }

  function spaces(state) {
    const row = (space) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, space.name, " ", h("code", {}, space.fingerprint)),
        h("td.number", {}, space.pictures.toLocaleString("en")),
        h("td.number", {}, space.waiting ? space.waiting.toLocaleString("en") : "–"),
        h("td", {}, space.answers ? "in use" : "another space of this name is in use"),
        h("td", {}, space.created.slice(0, 10)),
      );
    return h(
      "section.card",
      {},
      h("h2", {}, "Feature spaces"),
      h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Feature spaces" }, h("table", {}, h("thead", {}, h("tr", {}, ["Space", "Pictures", "Files waiting", "", "Made"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, state.spaces.map(row)))),
    );
  }

  function failed(state) {
    if (!state.failures) return h("section.card", {}, h("h2", {}, "Failed"), h("p.quiet-text", {}, "Every file could be read."));
    return h(
      "section.card",
      {},
      h("h2", {}, `Failed: ${plural(state.failures, "file")}`),
      h("ul.failed", {}, state.failed.slice(0, SHOWN).map((one) => h("li", {}, h("span.path", {}, one.path), h("span.reason", {}, one.reason)))),
      state.failures > SHOWN ? h("p.quiet-text", {}, `… and ${(state.failures - SHOWN).toLocaleString("en")} more; `, h("code", {}, "diffsim status"), " lists all of them.") : null,
    );
  }

  const ready = refresh();
  return {
    ready,
    close() {
      stop.abort();
      clearTimeout(timer);
    },
  };
}

const isRunning = (state) => Boolean(state.writer) || ["running", "stopping"].includes(state.run?.state);

const timeText = (seconds) => (seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);
