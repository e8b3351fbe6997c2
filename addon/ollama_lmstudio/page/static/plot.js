// The arrival of an answer: tokens over time, with the load and the prompt before it, and gaps.

import { leastGap, partsOf } from "./bar.js";
import { count, duration, nice, plural } from "./format.js";
import { changed } from "./store.js";
import { html, nothing, svg } from "./vendor/lit-html/lit-html.js";

/** @typedef {import("./store.js").Piece} Piece */
/** @typedef {import("./store.js").Row} Row */
/** @typedef {{row: Row, name: string, events: Piece[]}} Line An answer that is drawn. */
/** @typedef {{at: number, text: string, kind: string, gap: number}} Point */

const [WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP] = [860, 300, 46, 28, 26, 10];
const MOST_GAPS = 50;
/** So many characters of what came before a token are shown with it. */
const CONTEXT = 60;

/** What the pointer is on: the answer and its token. */
let hover = { line: -1, point: -1 };

/** @type {WeakMap<Piece[], {points: Point[], gaps: Point[]}>} */
const known = new WeakMap();

/** The tokens that have come, and the gaps between them. @param {Piece[]} events */
export function pointsOf(events) {
  const cached = known.get(events);
  if (cached) return cached;
  /** @type {Point[]} */
  const points = [];
  for (const [at, kind, text] of events) {
    if (at === null || !kind) continue;
    points.push({ at, text, kind, gap: points.length ? at - points[points.length - 1].at : 0 });
  }
  const sorted = points.slice(1).map((point) => point.gap);
  sorted.sort((a, b) => a - b);
  const least = leastGap(sorted[sorted.length >> 1] ?? 0);
  const gaps = points.filter((point) => point.gap > least);
  gaps.sort((a, b) => b.gap - a.gap);
  const found = { points, gaps: gaps.slice(0, MOST_GAPS) };
  known.set(events, found);
  return found;
}

/** An exchange with the numbers of what has come of its answer. @param {Row} row @param {Piece[]} events
 *  @returns {Row} */
export function measured(row, events) {
  const { points } = pointsOf(events);
  if (!row.isRunning || !points.length) return row;
  const [first, last] = [points[0].at, points[points.length - 1].at];
  const speed = last > first ? ((points.length - 1) / (last - first)) * 1000 : 0;
  return { ...row, firstToken: first, answerTokens: points.length, speed };
}

/** @param {Line[]} lines one or two answers, laid over each other */
export function plot(lines) {
  const drawn = lines.map((line) => ({ ...line, ...pointsOf(line.events) }));
  if (!drawn.some((line) => line.points.length)) {
    return html`<p class="empty">No arrivals are known: the answer came whole, or none has come yet.</p>`;
  }
  const [now, last] = [Date.now(), drawn.flatMap((line) => line.points[line.points.length - 1]?.at ?? [])];
  const end = nice2(Math.max(...last, ...drawn.map((line) => line.row.total ?? 0)));
  const most = nice2(Math.max(...drawn.map((line) => line.points.length), 1));
  const x = (/** @type {number} */ ms) => LEFT + (ms / end) * (WIDTH - LEFT - RIGHT);
  const y = (/** @type {number} */ tokens) => HEIGHT - BOTTOM - (tokens / most) * (HEIGHT - BOTTOM - TOP);
  const find = (/** @type {PointerEvent} */ event) => {
    const box = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
    hover = nearest(
      drawn,
      ((event.clientX - box.left) / box.width) * WIDTH,
      x,
      y,
      ((event.clientY - box.top) / box.height) * HEIGHT,
    );
    changed();
  };
  const step = (/** @type {KeyboardEvent} */ event) => {
    const by = {
      ArrowRight: 1,
      ArrowLeft: -1,
      PageDown: 20,
      PageUp: -20,
      Home: -1e9,
      End: 1e9,
      ArrowUp: 0,
      ArrowDown: 0,
    }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    // Up and down go from one answer to the other.
    const line = ((drawn[hover.line] ? hover.line : 0) + Number(by === 0)) % drawn.length;
    const point = Math.min(Math.max(hover.point + by, 0), drawn[line].points.length - 1);
    hover = { line, point };
    changed();
  };
  return html`
    <figure class="plot">
      <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" tabindex="0" role="img" aria-label=${label(drawn)}
        @pointermove=${find} @pointerleave=${leave} @keydown=${step}>
        ${axes(end, most, x, y)}
        ${drawn.map((line, at) => (at ? "" : before(line.row, x, now)))}
        ${drawn.map((line) => line.gaps.map((gap) => gapMark(gap, x)))}
        ${drawn.map((line, at) => svg`<path class="tokens line-${at}" d=${pathOf(line.points, x, y)}></path>`)}
        ${drawn.map((line, at) => thoughtsMark(line.points, at, x, y))}
        ${mark(drawn, x, y)}
      </svg>
      <figcaption>
        ${drawn.map((line, at) => html`<span class="legend line-${at}">${line.name}</span> `)}
        <span class="key load">load</span> <span class="key reading">prompt</span>
        <span class="key gap">gaps</span> <span class="key thoughts">thinking</span>
      </figcaption>
      <p class="hover" aria-live="polite">${hoverText(drawn)}</p>
    </figure>
    ${drawn.map((line) => gapList(line))}`;
}

/** A round number that leaves little room above a value. @param {number} value */
function nice2(value) {
  const step = nice(value) / 10;
  return Math.max(Math.ceil(value / step) * step, 1);
}

function leave() {
  hover = { line: -1, point: -1 };
  changed();
}

/** @typedef {(value: number) => number} Scale */

/** @param {number} end @param {number} most @param {Scale} x @param {Scale} y */
function axes(end, most, x, y) {
  const [times, tokens] = [nice(end / 6), nice(most / 4)];
  const marks = [];
  for (let at = 0; at <= end; at += times) {
    marks.push(svg`<line class="grid" x1=${x(at)} x2=${x(at)} y1=${TOP} y2=${HEIGHT - BOTTOM}></line>
      <text class="axis middle" x=${x(at)} y=${HEIGHT - 8}>${at ? duration(at) : "0"}</text>`);
  }
  for (let at = tokens; at <= most; at += tokens) {
    marks.push(svg`<line class="grid" x1=${LEFT} x2=${WIDTH - RIGHT} y1=${y(at)} y2=${y(at)}></line>
      <text class="axis end" x=${LEFT - 6} y=${y(at) + 4}>${count(at)}</text>`);
  }
  return marks;
}

/** The time before the first token. @param {Row} row @param {Scale} x @param {number} now */
function before(row, x, now) {
  return partsOf(row, now)
    .filter(([name]) => name === "load" || name === "reading")
    .map(
      ([name, begin, finish]) =>
        svg`<rect class=${name} x=${x(begin)} width=${Math.max(x(finish) - x(begin), 1)} y=${TOP} height=${HEIGHT - BOTTOM - TOP} opacity="0.35"></rect>`,
    );
}

/** @param {Point} gap @param {Scale} x */
function gapMark(gap, x) {
  const begin = x(gap.at - gap.gap);
  return svg`<rect class="gap" x=${begin} width=${Math.max(x(gap.at) - begin, 1)} y=${TOP} height=${HEIGHT - BOTTOM - TOP} opacity="0.3">
    <title>${duration(gap.gap)} without a token</title></rect>`;
}

/** @param {Point[]} points @param {Scale} x @param {Scale} y */
function pathOf(points, x, y) {
  const parts = points.map((point, at) => `H${x(point.at).toFixed(1)}V${y(at + 1).toFixed(1)}`);
  return points.length ? `M${x(points[0].at).toFixed(1)} ${y(0).toFixed(1)}${parts.join("")}` : "";
}

/** The thoughts, as a line below. @param {Point[]} points @param {number} at @param {Scale} x @param {Scale} y */
function thoughtsMark(points, at, x, y) {
  const thoughts = points.filter((point) => point.kind === "r");
  if (!thoughts.length) return "";
  const [begin, end] = [x(thoughts[0].at), x(thoughts[thoughts.length - 1].at)];
  return svg`<rect class="thoughts" x=${begin} width=${Math.max(end - begin, 2)} y=${y(0) - 4 - 6 * at} height="4"></rect>`;
}

/** @param {{points: Point[]}[]} lines @param {number} px @param {Scale} x @param {Scale} y @param {number} py */
function nearest(lines, px, x, y, py) {
  let best = { line: -1, point: -1, distance: Number.POSITIVE_INFINITY };
  lines.forEach(({ points }, line) => {
    let [low, high] = [0, points.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (x(points[middle].at) < px) low = middle + 1;
      else high = middle;
    }
    for (const point of [low - 1, low]) {
      if (!points[point]) continue;
      const distance = Math.abs(x(points[point].at) - px) + (lines.length > 1 ? Math.abs(y(point + 1) - py) : 0);
      if (distance < best.distance) best = { line, point, distance };
    }
  });
  return { line: best.line, point: best.point };
}

/** @param {{points: Point[]}[]} lines @param {Scale} x @param {Scale} y */
function mark(lines, x, y) {
  const point = lines[hover.line]?.points[hover.point];
  if (!point) return "";
  return svg`<line class="cursor-line" x1=${x(point.at)} x2=${x(point.at)} y1=${TOP} y2=${HEIGHT - BOTTOM}></line>
    <circle class="line-${hover.line}" cx=${x(point.at)} cy=${y(hover.point + 1)} r="4"></circle>`;
}

/** @param {{name: string, points: Point[]}[]} lines */
function hoverText(lines) {
  const line = lines[hover.line];
  const point = line?.points[hover.point];
  if (!point) return "Move over the line, or use the arrow keys in it, to read what came when.";
  const earlier = line.points
    .slice(Math.max(0, hover.point - 40), hover.point)
    .map((one) => one.text)
    .join("");
  const after = point.gap ? `, ${duration(point.gap)} after the one before` : "";
  return html`Token ${count(hover.point + 1)} at ${duration(point.at)}${after}:
    <code><span class="earlier-text">${earlier.slice(-CONTEXT)}</span><mark>${point.text || "(nothing)"}</mark></code>`;
}

/** @param {{name: string, gaps: Point[]}} line */
function gapList(line) {
  if (!line.gaps.length) return nothing;
  return html`<details class="gaps">
    <summary>${plural(line.gaps.length, "gap")} in ${line.name}, the longest ${duration(line.gaps[0].gap)}</summary>
    <ol>${line.gaps.map((gap) => html`<li>${duration(gap.gap)}, from ${duration(gap.at - gap.gap)} on, before <code>${gap.text}</code></li>`)}</ol>
  </details>`;
}

/** @param {{name: string, points: Point[]}[]} lines */
function label(lines) {
  return `Tokens over time: ${lines.map((line) => `${line.name}, ${count(line.points.length)} tokens`).join("; ")}`;
}
