// The list of exchanges. Only the lines that are seen are in the document, however many there are.

import { bar, PARTS } from "./bar.js";
import { clock, count, duration, nice, plural, quantile, rate } from "./format.js";
import { items, shownRows } from "./groups.js";
import { changed, listChanged, state, version } from "./store.js";
import { repeat } from "./vendor/lit-html/directives/repeat.js";
import { html, nothing } from "./vendor/lit-html/lit-html.js";

/** @typedef {import("./store.js").Row} Row */
/** @typedef {import("./groups.js").Item} Item */

const LINE_HEIGHT = 66;
/** So many lines beyond those that are seen. */
const MARGIN = 6;
/** Lines that are longer than nearly all others do not make the bars of those too short to be seen. */
const MOST = 0.95;

let scale = { version: -1, ms: 1000 };
/** The line at the top, which stays where it is when others come above it. */
let top = "";

function scroller() {
  return /** @type {HTMLElement | null} */ (document.querySelector(".lines"));
}

function scaleOf() {
  if (scale.version !== version) {
    const totals = shownRows().flatMap((row) => row.total ?? []);
    totals.sort((a, b) => a - b);
    scale = { version, ms: totals.length ? nice(quantile(totals, MOST)) : 1000 };
  }
  return scale.ms;
}

/** @param {(id: string) => void} choose */
export function list(choose) {
  const lines = items();
  const element = scroller();
  const at = keepPlace(element, lines);
  const first = Math.max(0, Math.floor(at / LINE_HEIGHT) - MARGIN);
  const seen = Math.ceil((element?.clientHeight ?? 800) / LINE_HEIGHT) + 2 * MARGIN;
  const shown = lines.slice(first, first + seen);
  const [ms, now] = [scaleOf(), Date.now()];
  return html`
    <p class="scale">
      ${plural(shownRows().length, "exchange")}${state.isSearching ? ", searching" : ""}; bars are ${duration(ms)} wide:
      ${PARTS.map(([name, text]) => html`<span class="key ${name}">${text}</span> `)}
    </p>
    <div class="lines" role="listbox" aria-label="Exchanges" tabindex="0" @scroll=${scrolled}
      aria-activedescendant=${state.selected ? `line-${state.selected}` : nothing}>
      <div class="all-lines" role="presentation" .style=${`height: ${lines.length * LINE_HEIGHT}px`}>
        ${repeat(
          shown,
          (item) => item.row.id,
          (item, index) => line(item, first + index, lines.length, ms, now, choose),
        )}
      </div>
      ${lines.length ? "" : html`<p class="empty">${emptyText()}</p>`}
    </div>`;
}

function emptyText() {
  if (!state.rows.size) return "No exchanges yet: they are shown here while they run.";
  return state.isSearching ? "Nothing found yet." : "The filter lets none through.";
}

function scrolled() {
  const lines = items();
  top = lines[Math.floor((scroller()?.scrollTop ?? 0) / LINE_HEIGHT)]?.row.id ?? "";
  changed();
}

/** Return how far the list is scrolled, so that what was at its top stays there. @param {HTMLElement | null} element
 *  @param {Item[]} lines */
function keepPlace(element, lines) {
  const at = element?.scrollTop ?? 0;
  if (!element || at < LINE_HEIGHT || !top) return at;
  const before = Math.floor(at / LINE_HEIGHT);
  if (lines[before]?.row.id === top) return at;
  const now = lines.findIndex((item) => item.row.id === top);
  if (now < 0) return at;
  const moved = at + (now - before) * LINE_HEIGHT;
  queueMicrotask(() => (element.scrollTop = moved));
  return moved;
}

/** @param {Item} item @param {number} index @param {number} size @param {number} ms @param {number} now
 *  @param {(id: string) => void} choose */
function line(item, index, size, ms, now, choose) {
  const { row } = item;
  const isChosen = row.id === state.selected;
  const kind = row.error ? "failed" : row.isRunning ? "running" : row.hasLeft || row.isCutOff ? "cut" : "";
  return html`<div class="line ${kind} ${item.isMember ? "member" : ""}" id="line-${row.id}" role="option"
    aria-selected=${isChosen ? "true" : "false"} aria-posinset=${index + 1} aria-setsize=${size}
    .style=${`transform: translateY(${index * LINE_HEIGHT}px)`} @click=${() => choose(row.id)}>
    <div class="first">
      ${item.count > 1 && !item.isMember ? foldButton(item) : nothing}
      <span class="said">${titleOf(row)}</span>
      <time>${clock(row.at)}</time>
    </div>
    <div class="second">${secondLine(row)}</div>
    ${bar(row, ms, now)}
  </div>`;
}

/** @param {Item} item */
function foldButton(item) {
  const isOpen = state.unfolded.has(item.group);
  const toggle = (/** @type {Event} */ event) => {
    event.stopPropagation();
    unfold(item.group);
  };
  // No button: nothing in an option of a list can be reached on its own. The space bar does the same.
  return html`<span class="fold" @click=${toggle}
    title="The exchanges of this conversation (space)">${isOpen ? "▾" : "▸"} ${count(item.count)}</span>`;
}

/** @param {string} group */
export function unfold(group) {
  if (!state.unfolded.delete(group)) state.unfolded.add(group);
  listChanged();
}

/** What an exchange is about. @param {Row} row */
export function titleOf(row) {
  if (row.isOwn) return `(bridge) ${row.purpose ?? row.endpoint}`;
  const asked = row.prompt || (row.isChat ? "(no text)" : "");
  return [row.isChat ? "" : row.endpoint, asked, row.signs, row.repeats ? "(asked again)" : ""]
    .filter(Boolean)
    .join(" ");
}

/** @param {Row} row */
function secondLine(row) {
  const who = [row.model, row.key ? `by ${row.key}` : row.client].filter(Boolean).join(", ");
  if (row.state) return html`<b>${row.state}</b> ${who}`;
  if (row.error) return html`<b>✗ ${row.error}</b> ${who}`;
  const tokens = row.answerTokens ? `${count(row.promptTokens)} + ${count(row.answerTokens)} tokens` : "";
  const ended = row.hasLeft ? "✂ left" : row.isCutOff ? "✂ cut off: length" : "";
  const facts = [ended, who, rate(row.speed), tokens, row.isEdited ? "edited" : ""];
  return facts.filter(Boolean).join(" · ");
}

/** Choose the exchange that is so many lines further. @param {number} step @param {(id: string) => void} choose */
export function move(step, choose) {
  const lines = items();
  if (!lines.length) return;
  const at = lines.findIndex((item) => item.row.id === state.selected);
  const next = at < 0 ? 0 : Math.min(Math.max(at + step, 0), lines.length - 1);
  choose(lines[next].row.id);
  show(next);
}

/** Scroll the list to a line. @param {number} index */
function show(index) {
  const element = scroller();
  if (!element) return;
  const begin = index * LINE_HEIGHT;
  if (begin < element.scrollTop) element.scrollTop = begin;
  const end = begin + LINE_HEIGHT - element.clientHeight;
  if (end > element.scrollTop) element.scrollTop = end;
}

/** Unfold or fold the conversation of the chosen exchange. */
export function foldChosen() {
  const item = items().find((one) => one.row.id === state.selected);
  if (item && item.count > 1) unfold(item.group);
}
