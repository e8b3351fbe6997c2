// Numbers of each model, over the exchanges that the list shows.

import { count, duration, quantile, rate } from "./format.js";
import { shownRows } from "./groups.js";
import { copy } from "./markdown.js";
import { changed, state, version } from "./store.js";
import { html, nothing, svg } from "./vendor/lit-html/lit-html.js";

/** @typedef {import("./store.js").Row} Row */
/** @typedef {{model: string, requests: number, errors: number, first: number[], speed: number[], context: number[],
 *   promptTokens: number, answerTokens: number}} Model Of times and speeds all values, sorted; of the context shares. */

const BINS = 16;

let last = { version: -1, models: /** @type {Model[]} */ ([]), since: 0, until: 0 };

function models() {
  if (last.version === version) return last;
  /** @type {Map<string, Model>} */
  const found = new Map();
  let [since, until] = [Number.POSITIVE_INFINITY, 0];
  for (const row of shownRows()) {
    if (!row.model || row.isOwn) continue;
    const model = found.get(row.model) ?? {
      model: row.model,
      requests: 0,
      errors: 0,
      first: [],
      speed: [],
      context: [],
      promptTokens: 0,
      answerTokens: 0,
    };
    found.set(row.model, model);
    model.requests += 1;
    if (row.error) model.errors += 1;
    if (row.firstToken) model.first.push(row.firstToken);
    if (row.speed) model.speed.push(row.speed);
    const used = (row.promptTokens ?? 0) + (row.answerTokens ?? 0);
    if (row.context && used) model.context.push(used / row.context);
    model.promptTokens += row.promptTokens ?? 0;
    model.answerTokens += row.answerTokens ?? 0;
    since = Math.min(since, row.at);
    until = Math.max(until, row.at);
  }
  for (const model of found.values()) {
    for (const values of [model.first, model.speed, model.context]) values.sort((a, b) => a - b);
  }
  const sorted = [...found.values()].sort((a, b) => b.requests - a.requests);
  last = { version, models: sorted, since, until };
  return last;
}

/** How often values fall into each of equal parts of a range. @param {number[]} sorted @param {number} least
 *  @param {number} most */
export function histogram(sorted, least, most) {
  const bins = new Array(BINS).fill(0);
  const width = (most - least) / BINS || 1;
  for (const value of sorted) bins[Math.min(Math.max(Math.floor((value - least) / width), 0), BINS - 1)] += 1;
  return bins;
}

/** @param {number[]} sorted @param {number} most @param {(value: number) => string} text */
function distribution(sorted, most, text) {
  if (!sorted.length) return html`<td class="none">–</td>`;
  const bins = histogram(sorted, 0, most);
  const highest = Math.max(...bins);
  const [median, p95] = [quantile(sorted, 0.5), quantile(sorted, 0.95)];
  const described = `median ${text(median)}, 95 % up to ${text(p95)}`;
  return html`<td>
    <svg class="histogram" viewBox="0 0 ${BINS * 6} 24" role="img" aria-label=${described}>
      <title>${described}; the whole width is ${text(most)}</title>
      ${bins.map((value, at) => svg`<rect x=${at * 6} y=${24 - (value / highest) * 24} width="5" height=${(value / highest) * 24}></rect>`)}
    </svg>
    <span>${text(median)} <small>95 % ${text(p95)}</small></span>
  </td>`;
}

const percent = (/** @type {number} */ share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

export function numbersPage() {
  const { models: shown, since, until } = models();
  if (!shown.length) return html`<p class="empty">No model has been asked in what the list shows.</p>`;
  const time = (/** @type {number} */ at) => new Date(at * 1000).toLocaleString("en-GB");
  const [first, speed] = [most(shown, "first"), most(shown, "speed")];
  return html`<h2>Numbers of each model</h2>
    <p>Of what the list shows: from ${time(since)} to ${time(until)}.
      <button type="button" @click=${copyCsv}>Copy as CSV</button></p>
    <div class="scrolls" tabindex="0"><table class="models">
      <thead><tr><th scope="col">model</th><th scope="col">requests</th><th scope="col">errors</th>
        <th scope="col">first token</th><th scope="col">speed</th><th scope="col">context used</th>
        <th scope="col">tokens in + out</th></tr></thead>
      <tbody>${shown.map(
        (model) => html`<tr>
        <th scope="row">${model.model}</th><td>${count(model.requests)}</td>
        <td class=${model.errors ? "failed" : nothing}>${count(model.errors)}</td>
        ${distribution(model.first, first, duration)}${distribution(model.speed, speed, rate)}
        ${distribution(model.context, 1, percent)}
        <td>${count(model.promptTokens)} + ${count(model.answerTokens)}</td>
      </tr>`,
      )}</tbody>
    </table></div>`;
}

/** The largest value of all models: their distributions have one scale. @param {Model[]} all @param {"first" | "speed"} name */
function most(all, name) {
  return Math.max(...all.map((model) => model[name][model[name].length - 1] ?? 0)) || 1;
}

export function csv() {
  const head =
    "model,requests,errors,first_token_median_ms,first_token_p95_ms,tokens_per_second_median,context_used_median,prompt_tokens,answer_tokens";
  const digits = (/** @type {number | undefined} */ value) =>
    value === undefined ? "" : String(Number(value.toPrecision(4)));
  const lines = models().models.map((model) =>
    [
      /[",\n]/.test(model.model) ? `"${model.model.replaceAll('"', '""')}"` : model.model,
      model.requests,
      model.errors,
      digits(quantile(model.first, 0.5)),
      digits(quantile(model.first, 0.95)),
      digits(quantile(model.speed, 0.5)),
      digits(quantile(model.context, 0.5)),
      model.promptTokens,
      model.answerTokens,
    ].join(","),
  );
  return `${[head, ...lines].join("\r\n")}\r\n`;
}

async function copyCsv() {
  state.notice = (await copy(csv())) ? "The table is on the clipboard." : "This browser lets no page copy here.";
  changed();
}
