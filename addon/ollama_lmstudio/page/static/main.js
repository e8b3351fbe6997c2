// The page: the list, one exchange, and the keys.

import { exchange, openTab, TABS } from "./exchange.js";
import { valuesOf } from "./groups.js";
import { foldChosen, list, move } from "./list.js";
import { numbersPage } from "./numbers.js";
import { connect, find, follow, need } from "./server.js";
import { changed, drawWith, listChanged, state } from "./store.js";
import { html, nothing, render } from "./vendor/lit-html/lit-html.js";

const SEARCH_WAIT = 250;

/** @param {string} id */
function choose(id) {
  if (id !== state.selected) state.other = "";
  state.selected = id;
  state.isDetailOpen = true;
  if (state.tab === "numbers" || state.tab === "compare") state.tab = "thread";
  history.replaceState(null, "", `#${id}`);
  need(id);
  follow();
  changed();
}

function draw() {
  render(page(), document.body);
  document.title = titleOf();
}

function titleOf() {
  let running = 0;
  for (const row of state.rows.values()) if (row.isRunning && !row.isOwn) running += 1;
  return running ? `(${running}) Conversations` : "Conversations";
}

const page = () => html`
  <header class="bar-top">
    <h1>Conversations</h1>
    <form role="search" @submit=${(/** @type {Event} */ event) => event.preventDefault()}>
      <input type="search" name="q" placeholder="Search what was said ( / )" aria-label="Search what was said"
        .value=${state.filter.text} @input=${searched}>
      ${choice("model", "all models")} ${choice("client", "all clients")} ${choice("key", "all keys")}
      ${select("minutes", "all times", TIMES)} ${box("failed", "failures")} ${box("own", "the bridge's own")}
    </form>
    <button type="button" aria-pressed=${state.tab === "numbers" ? "true" : "false"} @click=${() => show("numbers")}>Numbers</button>
    <a href="/">mitmweb</a>
    <span class="connection ${state.connection}" role="status">${CONNECTIONS[state.connection]}</span>
  </header>
  ${state.notice ? html`<p class="notice" role="alert">${state.notice} <button type="button" @click=${dismiss}>Dismiss</button></p>` : nothing}
  <div class="panes ${state.isDetailOpen ? "has-detail" : ""}">
    <nav aria-label="Exchanges">${list(choose)}</nav>
    <main>
      <button type="button" class="back" @click=${back}>‹ All exchanges</button>
      ${state.tab === "numbers" ? numbersPage() : exchange(choose)}
    </main>
  </div>`;

/** @type {Record<string, string>} */
const CONNECTIONS = {
  connecting: "connecting",
  live: "live",
  lost: "mitmweb is not there: trying again",
  login: "mitmweb has begun anew and asks for its login: open the address that its start said",
};

/** The last times that can be chosen, in minutes. @type {[string, string][]} */
const TIMES = [
  ["10", "last 10 minutes"],
  ["60", "last hour"],
  ["1440", "last day"],
];

/** @param {string} tab */
function show(tab) {
  state.tab = state.tab === tab ? "thread" : tab;
  state.isDetailOpen = state.tab === "numbers" || Boolean(state.selected);
  changed();
}

function back() {
  state.isDetailOpen = false;
  if (state.tab === "numbers") state.tab = "thread";
  changed();
}

function dismiss() {
  state.notice = "";
  changed();
}

/** @param {"model" | "client" | "key"} name @param {string} all */
function choice(name, all) {
  const values = valuesOf(name);
  if (values.length < 2 && !state.filter[name]) return nothing;
  return select(
    name,
    all,
    values.map((value) => [value, value]),
  );
}

/** @param {"model" | "client" | "key" | "minutes"} name @param {string} all @param {[string, string][]} options */
function select(name, all, options) {
  const chosen = (/** @type {Event} */ event) => {
    state.filter[name] = /** @type {HTMLSelectElement} */ (event.target).value;
    listChanged();
  };
  return html`<select name=${name} aria-label=${all} @change=${chosen}>
    <option value="">${all}</option>
    ${options.map(([value, text]) => html`<option value=${value} ?selected=${value === state.filter[name]}>${text}</option>`)}
  </select>`;
}

/** @param {"failed" | "own"} name @param {string} text */
function box(name, text) {
  const toggle = () => {
    state.filter[name] = !state.filter[name];
    listChanged();
  };
  return html`<label class="box"><input type="checkbox" name=${name} .checked=${state.filter[name]} @change=${toggle}>${text}</label>`;
}

let searching = 0;

/** @param {Event} event */
function searched(event) {
  state.filter.text = /** @type {HTMLInputElement} */ (event.target).value;
  clearTimeout(searching);
  searching = setTimeout(find, SEARCH_WAIT);
  changed();
}

/** What keys do, where nothing is typed. @type {Record<string, () => void>} */
const KEYS = {
  j: () => move(1, choose),
  k: () => move(-1, choose),
  ArrowDown: () => move(1, choose),
  ArrowUp: () => move(-1, choose),
  Enter: () => document.getElementById("panel")?.focus(),
  " ": foldChosen,
  "/": () => /** @type {HTMLElement | null} */ (document.querySelector("input[type=search]"))?.focus(),
  r: () => {
    state.isRaw = !state.isRaw;
    changed();
  },
  n: () => show("numbers"),
  Escape: back,
  ...Object.fromEntries(TABS.map(([name], at) => [String(at + 1), () => openTab(name)])),
};

document.addEventListener("keydown", (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (target.matches("input:not([type=checkbox]), textarea, select")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const isOfList = !target.closest("main");
  const isForList = ["ArrowDown", "ArrowUp", "Enter", " "].includes(event.key);
  if (isForList && (!isOfList || target.matches("button, a, summary, input"))) return;
  if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
});

addEventListener("hashchange", () => location.hash.length > 1 && choose(location.hash.slice(1)));
addEventListener("resize", changed);

// The cookie that came with the page is what counts from now on: the token need not stay where people see it.
if (location.search) history.replaceState(null, "", location.pathname + location.hash);
drawWith(draw);
connect();
if (location.hash.length > 1) choose(location.hash.slice(1));
changed();
// What runs takes longer with each second, whether anything comes of it or not.
setInterval(() => [...state.rows.values()].some((row) => row.isRunning) && changed(), 1000);
