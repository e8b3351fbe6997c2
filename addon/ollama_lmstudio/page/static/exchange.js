// One exchange: its tabs, and what each of them shows.

import { askForm, comparison } from "./ask.js";
import { bar } from "./bar.js";
import { clock, duration, plural, rate } from "./format.js";
import { conversationOf, items } from "./groups.js";
import { titleOf } from "./list.js";
import { measured, plot } from "./plot.js";
import { need } from "./server.js";
import { answerOf, changed, openedOf, state } from "./store.js";
import { answerBox, block, messageList, resultsOf, thread } from "./thread.js";
import { html, nothing } from "./vendor/lit-html/lit-html.js";

/** @typedef {import("./store.js").Opened} Opened */
/** @typedef {import("./store.js").Row} Row */
/** @typedef {import("./store.js").Side} Side */

/** The tabs of an exchange, with the keys that choose them. @type {[string, string][]} */
export const TABS = [
  ["thread", "Thread"],
  ["conversation", "Conversation"],
  ["timeline", "Timeline"],
  ["client", "Client"],
  ["changes", "Changes"],
  ["lmstudio", "LM Studio"],
  ["events", "Events"],
  ["ask", "Ask again"],
  ["compare", "Compare"],
];

/** So many exchanges that are not of the same conversation are offered for a comparison. */
const MOST_OTHERS = 40;
const HELP =
  "Choose an exchange: with the mouse, or j and k. Space unfolds a conversation, Enter goes to the exchange, 1 to 9 are " +
  "its tabs, r shows text as it was written, n the numbers of each model, / searches.";

/** @param {string} name */
export function openTab(name) {
  state.tab = name;
  need(state.selected);
  need(state.other);
  changed();
}

/** @param {(id: string) => void} choose */
export function exchange(choose) {
  const row = state.rows.get(state.selected);
  if (!state.selected) return html`<p class="empty">${HELP}</p>`;
  // One that is asked again comes a moment after it was chosen.
  if (!row) return html`<p class="empty">${openedOf(state.selected).error || "Loading"}</p>`;
  const opened = openedOf(row.id);
  const known = measured(row, answerOf(row.id).events);
  return html`
    <header class="title">
      <h2>${titleOf(row)}</h2>
      <p>${factsOf(known)} <a href="/#/flows/${row.id}/request" title="The same exchange on mitmweb's own page">in mitmweb</a></p>
      ${bar(known, Math.max(row.total ?? Date.now() - row.at * 1000, 1), Date.now())}
    </header>
    <div class="tabs" role="tablist" aria-label="What is shown of it">${TABS.filter(([name]) => isOffered(name, row)).map((one) => tab(one, row))}</div>
    <div class="panel" role="tabpanel" id="panel" aria-labelledby="tab-${tabOf(row)}" tabindex="-1">
      ${opened.error ? html`<p class="error" role="alert">${opened.error}</p>` : nothing}
      ${panel(row, opened, choose)}
    </div>`;
}

/** @param {string} name @param {Row} row */
function isOffered(name, row) {
  if (row.isOwn) return !["conversation", "client", "changes", "ask", "compare"].includes(name);
  if (name === "conversation") return conversationOf(row.id).size > 1;
  return name !== "compare" || Boolean(state.other || row.repeats);
}

/** The tab that is shown: not every exchange has the one that was chosen last. @param {Row} row */
const tabOf = (row) => (isOffered(state.tab, row) ? state.tab : "thread");

/** @param {[string, string]} name @param {Row} row */
function tab([name, text], row) {
  const isChosen = tabOf(row) === name;
  return html`<button type="button" role="tab" id="tab-${name}" aria-selected=${isChosen ? "true" : "false"}
    aria-controls="panel" @click=${() => openTab(name)}>${text}</button>`;
}

/** @param {Row} row */
function factsOf(row) {
  const facts = [
    clock(row.at),
    row.endpoint,
    row.model,
    row.client,
    row.key ? `key ${row.key}` : "",
    rate(row.speed),
    row.firstToken ? `first token ${duration(row.firstToken)}` : "",
    row.total ? `${duration(row.total)} in all` : "",
    row.state || (row.isHeld ? "waits for you in mitmweb" : ""),
  ];
  return facts.filter(Boolean).join(" · ");
}

/** @param {Row} row @param {Opened} opened @param {(id: string) => void} choose */
function panel(row, opened, choose) {
  const { detail, sides, turns } = opened;
  if (!detail) return opened.error ? nothing : html`<p class="empty">Loading</p>`;
  const isRunning = Boolean(row.isRunning);
  const { answer, events } = answerOf(row.id);
  switch (tabOf(row)) {
    case "conversation":
      return turns ? turns.map((_, at) => turnOf(turns, at, choose)) : html`<p class="empty">Loading</p>`;
    case "timeline":
      return html`${plot([{ row, name: row.model ?? "answer", events }])} ${compareWith(row)}`;
    case "client":
      return sides ? html`${side("The client asked", sides.client)} ${side("It got", sides.response)}` : nothing;
    case "changes":
      return sides ? changesOf(sides.changes) : nothing;
    case "lmstudio":
      return sides ? lmstudio(sides.call, sides.lmstudio) : nothing;
    case "events":
      return sides ? eventTable(sides.events) : nothing;
    case "ask":
      return askForm(row, detail, choose);
    case "compare":
      return comparison(row, choose);
    default:
      return html`${row.isOwn ? nothing : thread(row.id, detail.request)} ${answerBox(row.id, answer, isRunning)}`;
  }
}

/** @param {import("./store.js").Turn[]} turns @param {number} at @param {(id: string) => void} choose */
function turnOf(turns, at, choose) {
  const turn = turns[at];
  const row = state.rows.get(turn.row.id) ?? turn.row;
  const answer = openedOf(row.id).live?.answer ?? turn.answer;
  // What came back for the tools is told under their calls, and not once more where it was sent.
  const told = new Set(resultsAfter(turns[at - 1], turn).values());
  return html`<section class="turn" aria-label="Exchange at ${clock(row.at)}">
    <p class="turn-facts"><button type="button" class="link" @click=${() => choose(row.id)}>${factsOf(row)}</button></p>
    ${messageList(
      row.id,
      turn.messages.filter((message) => !told.has(message)),
      false,
    )}
    ${answerBox(`${row.id} turn`, { ...answer, numbers: undefined }, Boolean(row.isRunning), resultsAfter(turn, turns[at + 1]))}
  </section>`;
}

/** What came back for the tools that an answer calls. @param {import("./store.js").Turn | undefined} turn
 *  @param {import("./store.js").Turn | undefined} next */
function resultsAfter(turn, next) {
  return resultsOf([{ at: -1, role: "assistant", calls: turn?.answer.calls }, ...(next?.messages ?? [])]);
}

/** Another exchange, to lay over this one. @param {Row} row */
function compareWith(row) {
  const ids = [...conversationOf(row.id)].filter((id) => id !== row.id);
  const newest = items()
    .slice(0, MOST_OTHERS)
    .map((item) => item.row.id);
  const others = [...new Set([row.repeats ?? "", ...ids, ...newest])]
    .map((id) => state.rows.get(id))
    .filter((one) => one && one.id !== row.id && one.isChat);
  const chosen = (/** @type {Event} */ event) => {
    state.other = /** @type {HTMLSelectElement} */ (event.target).value;
    openTab(state.other ? "compare" : "timeline");
  };
  return html`<label class="compare-with">Lay another answer over it:
    <select @change=${chosen}><option value="">none</option>
      ${others.map((one) => one && html`<option value=${one.id}>${clock(one.at)} ${one.model}: ${titleOf(one).slice(0, 60)}</option>`)}
    </select></label>`;
}

/** @param {string} heading @param {Side | undefined} given */
function side(heading, given) {
  if (!given) return html`<p class="empty">${heading}: nothing.</p>`;
  return html`<h3>${heading}</h3>
    <p><code>${given.line}</code> ${given.size}</p>
    <details><summary>${plural(given.headers.length, "header")}</summary>
      <dl class="headers">${given.headers.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></details>
    ${given.body ? block(`${state.selected} ${heading}`, given.body) : nothing}`;
}

/** @param {[string, string][] | undefined} changes */
function changesOf(changes) {
  if (!changes) return html`<p class="empty">Nothing was sent to LM Studio: this is the bridge's own answer.</p>`;
  return html`<h3>Changed on the way to LM Studio</h3>
    <dl class="changes">${changes.map(([name, text]) => html`<div><dt>${name}</dt><dd>${text}</dd></div>`)}</dl>`;
}

/** @param {Side | undefined} call @param {Side | undefined} answer */
function lmstudio(call, answer) {
  if (!call) return html`<p class="empty">Nothing was sent to LM Studio: this is the bridge's own answer.</p>`;
  return html`${side("LM Studio was asked", call)} ${side("It answered", answer)}
    ${answer?.body ? nothing : html`<p class="note">A stream of events is under Events.</p>`}`;
}

const MOST_EVENTS = 2000;

/** @param {import("./store.js").Sides["events"]} events */
function eventTable(events) {
  if (!events?.length) return html`<p class="empty">LM Studio sent no stream of events.</p>`;
  let before = /** @type {number | null} */ (null);
  return html`<h3>${plural(events.length, "event")}, as LM Studio sent them</h3>
    ${events.length > MOST_EVENTS ? html`<p class="note">The first ${MOST_EVENTS} are shown.</p>` : nothing}
    <div class="scrolls" tabindex="0"><table class="events">
      <thead><tr><th scope="col">event</th><th scope="col">at ms</th><th scope="col">gap ms</th><th scope="col">says</th></tr></thead>
      <tbody>${events.slice(0, MOST_EVENTS).map(([at, says, data], number) => {
        const gap = at !== null && before !== null && at !== before ? `+${(at - before).toFixed(1)}` : "";
        before = at ?? before;
        return html`<tr title=${data}><td>${number + 1}</td><td>${at?.toFixed(1)}</td><td>${gap}</td><td><code>${says}</code></td></tr>`;
      })}</tbody>
    </table></div>
    <details><summary>As they came</summary>${block(
      `${state.selected} raw`,
      events
        .slice(0, MOST_EVENTS)
        .map(([, , data]) => `data: ${data}`)
        .join("\n"),
      "events",
    )}</details>`;
}
