// Ask again, and both answers side by side. Nothing is sent before the button is pressed.

import { duration, rate } from "./format.js";
import { measured, plot } from "./plot.js";
import { askAgain, follow, loadModels, need } from "./server.js";
import { answerOf, changed, openedOf, state } from "./store.js";
import { answerBox } from "./thread.js";
import { html, nothing } from "./vendor/lit-html/lit-html.js";

/** @typedef {import("./store.js").Detail} Detail */
/** @typedef {import("./store.js").Row} Row */

/** What has been typed, by the exchange that is to be asked again.
 *  @type {{id: string, model: string, temperature: string, system: string, at: number, texts: Map<number, string>, isSending: boolean}} */
let draft = { id: "", model: "", temperature: "", system: "", at: -1, texts: new Map(), isSending: false };

/** @param {Detail} detail */
const systemOf = (detail) => detail.request.messages.find((message) => message.role === "system")?.text ?? "";

/** @param {Detail} detail */
function temperatureOf(detail) {
  const { temperature } = detail.request.options;
  return typeof temperature === "number" ? String(temperature) : "";
}

/** @param {Row} row @param {Detail} detail */
function begin(row, detail) {
  const { messages } = detail.request;
  const last = messages.findLast((message) => message.role === "user" && !message.isCut);
  draft = {
    id: row.id,
    model: row.model ?? "",
    temperature: temperatureOf(detail),
    system: systemOf(detail),
    at: last?.at ?? -1,
    texts: new Map(),
    isSending: false,
  };
  if (!state.models) loadModels();
}

/** @param {Row} row @param {Detail} detail @param {(id: string) => void} choose */
export function askForm(row, detail, choose) {
  if (!row.isChat) return html`<p class="empty">It asks no model to say something.</p>`;
  if (draft.id !== row.id) begin(row, detail);
  const { messages } = detail.request;
  const editable = messages.filter((one) => one.role !== "system" && !one.calls && one.text && !one.isCut);
  const hasLongSystem = messages.some((one) => one.role === "system" && one.isCut);
  const textOf = (/** @type {number} */ at) =>
    draft.texts.get(at) ?? messages.find((message) => message.at === at)?.text ?? "";
  const set = (/** @type {(value: string) => void} */ use) => (/** @type {Event} */ event) => {
    use(/** @type {HTMLInputElement} */ (event.target).value);
    changed();
  };
  const names = (state.models ?? []).map((name) => name.replace(/:latest$/, ""));
  // The list says its model without the publisher.
  const models = [row.model ?? "", ...names.filter((name) => name.split("/").pop() !== row.model)];
  return html`<form class="ask" @submit=${(/** @type {Event} */ event) => send(event, row, detail, choose)}>
    <h3>Ask again, with something changed</h3>
    <label>Model <select name="model" @change=${set((value) => (draft.model = value))}>
      ${models.map((name) => html`<option value=${name} ?selected=${name === draft.model}>${name}</option>`)}</select></label>
    <label>Temperature <input name="temperature" type="number" step="any" min="0" placeholder="the model's own"
      .value=${draft.temperature} @input=${set((value) => (draft.temperature = value))}></label>
    <label>System text <textarea name="system" rows="3" .value=${draft.system} ?disabled=${hasLongSystem}
      @input=${set((value) => (draft.system = value))}></textarea></label>
    ${
      editable.length
        ? html`<label>Message <select name="message" @change=${set((value) => (draft.at = Number(value)))}>
          ${editable.map((one) => html`<option value=${one.at} ?selected=${one.at === draft.at}>${one.at + 1}: ${one.role}: ${one.text?.slice(0, 60)}</option>`)}
        </select></label>
        <label>Its text <textarea name="text" rows="6" .value=${textOf(draft.at)}
          @input=${set((value) => draft.texts.set(draft.at, value))}></textarea></label>`
        : nothing
    }
    <p><button type="submit" class="send" ?disabled=${draft.isSending}>Ask LM Studio</button>
      <span class="note">Nothing is sent before this is pressed. The answer is a row of its own.</span></p>
  </form>`;
}

/** What is asked differently, as ask.py wants it. @param {Row} row @param {Detail} detail */
function wantedOf(row, detail) {
  /** @type {Record<string, unknown>} */
  const changes = {};
  if (draft.model && draft.model !== row.model) changes.model = draft.model;
  const before = temperatureOf(detail);
  if (draft.temperature !== before) changes.temperature = draft.temperature === "" ? null : Number(draft.temperature);
  const texts = [...draft.texts].filter(
    ([at, text]) => detail.request.messages.find((one) => one.at === at)?.text !== text,
  );
  return {
    changes,
    ...(draft.system === systemOf(detail) ? {} : { system: draft.system }),
    ...(texts.length ? { messages: Object.fromEntries(texts) } : {}),
  };
}

/** @param {Event} event @param {Row} row @param {Detail} detail @param {(id: string) => void} choose */
async function send(event, row, detail, choose) {
  event.preventDefault();
  draft.isSending = true;
  changed();
  try {
    const id = await askAgain(row.id, wantedOf(row, detail));
    choose(id);
    state.other = row.id;
    state.tab = "compare";
    need(row.id);
  } catch (error) {
    state.notice = `It was not asked: ${error instanceof Error ? error.message : error}`;
  }
  draft.isSending = false;
  changed();
}

/** Two answers: side by side, laid over each other, and their numbers. @param {Row} row
 *  @param {(id: string) => void} choose */
export function comparison(row, choose) {
  const first = state.rows.get(state.other || (row.repeats ?? ""));
  if (!first) return html`<p class="empty">The exchange that it was compared with is not in the list any more.</p>`;
  state.other = first.id;
  need(first.id);
  follow();
  const both = [first, row];
  const close = () => {
    state.other = "";
    state.tab = "thread";
    changed();
  };
  return html`<p class="compare-head"><button type="button" @click=${close}>End the comparison</button></p>
    <div class="both">${both.map((one) => column(one, choose))}</div>
    <h3>Numbers</h3>${numberTable(both.map((one) => measured(one, answerOf(one.id).events)))}
    <h3>Arrival of both</h3>
    ${plot(both.map((one, at) => ({ row: one, name: nameOf(one, at), events: answerOf(one.id).events })))}`;
}

/** @param {Row} row @param {number} at */
function nameOf(row, at) {
  return `${at ? "now" : "before"}: ${row.model}`;
}

/** @param {Row} row @param {number} at @param {(id: string) => void} choose */
function column(row, choose, at = Number(row.id === state.selected)) {
  const { answer } = answerOf(row.id);
  return html`<section class="column" aria-label=${nameOf(row, at)}>
    <h3 class="line-${at}"><button type="button" class="link" @click=${() => choose(row.id)}>${nameOf(row, at)}</button></h3>
    ${row.state ? html`<p class="note">${row.state}</p>` : nothing}
    ${answerBox(row.id, { ...answer, numbers: undefined }, Boolean(row.isRunning))}
  </section>`;
}

/** The numbers that are compared. @type {[string, (row: Row) => string][]} */
const NUMBERS = [
  ["model", (row) => row.model ?? ""],
  ["load", (row) => duration(row.load)],
  ["prompt", (row) => duration(row.reading)],
  ["first token", (row) => duration(row.firstToken)],
  ["speed", (row) => rate(row.speed)],
  ["tokens", (row) => (row.answerTokens ? `${row.promptTokens ?? 0} + ${row.answerTokens}` : "")],
  ["longest pause", (row) => duration(row.pause)],
  ["total", (row) => duration(row.total)],
  ["done reason", (row) => row.doneReason ?? ""],
];

/** @param {Row[]} both */
function numberTable(both) {
  const differences = openedOf(both[1].id).detail?.changed ?? [];
  const asked = differences.filter(([name]) => name !== "model");
  return html`<table class="compared">
    <thead><tr><th></th><th scope="col">before</th><th scope="col">now</th></tr></thead>
    <tbody>${asked.map(([name, before, now]) => html`<tr><th scope="row">${name}</th><td>${before || "–"}</td><td>${now || "–"}</td></tr>`)}
    ${NUMBERS.map(([name, text]) => html`<tr><th scope="row">${name}</th>${both.map((row) => html`<td>${text(row) || "–"}</td>`)}</tr>`)}</tbody>
  </table>`;
}
