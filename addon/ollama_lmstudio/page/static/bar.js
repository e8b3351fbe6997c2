// An exchange's time as a bar: finding and loading the model, reading the prompt, the first token, the answer, its pause.

import { duration } from "./format.js";
import { html, svg } from "./vendor/lit-html/lit-html.js";

/** @typedef {import("./store.js").Row} Row */

const WIDTH = 1000;
const HEIGHT = 8;
/** The parts of a bar, in their order, with what they are called. @type {[string, string][]} */
export const PARTS = [
  ["load", "load"],
  ["reading", "prompt"],
  ["wait", "other waiting"],
  ["generation", "answer"],
  ["pause", "longest pause"],
];

/** How long nothing must have come for a gap: much longer than between most tokens. @param {number} usual in ms */
export const leastGap = (usual) => Math.max(4 * usual, 60);

/**
 * The parts of an exchange's time, each with its begin and its end in ms.
 * @param {Row} row @param {number} now in ms since 1970
 * @returns {[string, number, number][]}
 */
export function partsOf(row, now) {
  const total = row.total ?? (row.isRunning ? Math.max(now - row.at * 1000, 0) : 0);
  const first = Math.min(row.firstToken ?? 0, total);
  if (!first) return total ? [["wait", 0, total]] : [];
  const load = Math.min(row.load ?? 0, first);
  const reading = Math.min(row.reading ?? 0, first - load);
  const end = Math.min(first + (row.generation || total - first), total);
  /** @type {[string, number, number][]} */
  const parts = [
    ["load", 0, load],
    ["wait", load, first - reading],
    ["reading", first - reading, first],
    ["generation", first, end],
    ["wait", end, total],
  ];
  const { pause = 0, pauseAt = 0, answerTokens = 0 } = row;
  const isUnusual = pause > leastGap((row.generation ?? 0) / Math.max(answerTokens - 1, 1));
  if (pauseAt && isUnusual) parts.push(["pause", pauseAt, Math.min(pauseAt + pause, total)]);
  return parts.filter(([, begin, finish]) => finish > begin);
}

/** @param {Row} row @param {number} scale what the whole width stands for, in ms @param {number} now */
export function bar(row, scale, now) {
  const parts = partsOf(row, now);
  const end = parts.reduce((longest, [, , finish]) => Math.max(longest, finish), 0);
  const x = (/** @type {number} */ ms) => Math.min((ms / scale) * WIDTH, WIDTH);
  return html`<svg class="bar" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img"
    aria-label=${describe(row)}>
    ${parts.map(([name, begin, finish]) => {
      const width = Math.max(x(finish) - x(begin), 2);
      return svg`<rect class=${name} x=${x(begin)} width=${width} height=${HEIGHT}></rect>`;
    })}
    ${end > scale ? svg`<path class="longer" d="M985 0 L1000 4 L985 8 Z"></path>` : ""}
  </svg>`;
}

/** @param {Row} row */
export function describe(row) {
  const parts = [
    ["load", row.load],
    ["prompt", row.reading],
    ["first token after", row.firstToken],
    ["answer", row.generation],
    ["longest pause", row.pause],
    ["in all", row.total],
  ];
  return parts.flatMap(([name, ms]) => (ms ? [`${name} ${duration(Number(ms))}`] : [])).join(", ");
}
