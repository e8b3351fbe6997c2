// What the page knows: rows of the list, the exchanges that were opened, and what is shown of them.

/**
 * A row of the list; what is empty is left out. Durations are in milliseconds. See rows.py.
 * @typedef {{id: string, at: number, endpoint?: string, isChat?: boolean, model?: string, upstreamModel?: string,
 *   client?: string, key?: string, conversation?: string, prompt?: string, answer?: string, signs?: string,
 *   purpose?: string, isOwn?: boolean, repeats?: string, state?: string, isRunning?: boolean, isHeld?: boolean,
 *   isEdited?: boolean, status?: number, error?: string, hasLeft?: boolean, isCutOff?: boolean, context?: number,
 *   total?: number, load?: number, reading?: number, firstToken?: number, generation?: number, pause?: number,
 *   pauseAt?: number, promptTokens?: number, answerTokens?: number, speed?: number, doneReason?: string}} Row
 * @typedef {{type: string, size?: string, src?: string, width?: number, height?: number}} Attachment
 * @typedef {{name: string, id?: string, arguments: string}} Call
 * @typedef {{at: number, role: string, text?: string, isCut?: boolean, thinking?: string, files?: Attachment[], calls?: Call[],
 *   answers?: string}} Message
 * @typedef {[at: number | null, kind: string, text: string]} Piece When an event came, and what it adds.
 * @typedef {{text?: string, thinking?: string, calls?: Call[], finish?: string, error?: string, problems?: string[],
 *   numbers?: [string, string][], other?: string}} Answer
 * @typedef {{signature: string, name: string, description?: string, schema?: string}} Tool
 * @typedef {{messages: Message[], newAt: number, leftOut: number, texts: string[], tools: Tool[],
 *   options: Record<string, string | number | boolean>, problem?: string}} Request
 * @typedef {{row: Row, target: string, request: Request, answer: Answer, events: Piece[],
 *   changed: [name: string, before: string, now: string][]}} Detail
 * @typedef {{line: string, headers: [string, string][], body: string, size: string}} Side
 * @typedef {{client?: Side, response?: Side, changes?: [string, string][], call?: Side, lmstudio?: Side,
 *   events?: [number | null, string, string][]}} Sides
 * @typedef {{row: Row, messages: Message[], answer: Answer}} Turn
 * @typedef {{answer: Answer, events: Piece[]}} Live An answer that is coming.
 * @typedef {{detail?: Detail, sides?: Sides, turns?: Turn[], live?: Live, error?: string}} Opened
 */

export const state = {
  /** @type {Map<string, Row>} */
  rows: new Map(),
  /** The exchange that is chosen, and the one that it is compared with. */
  selected: "",
  other: "",
  /** What is shown of it; `numbers` is of all that the list shows. */
  tab: "thread",
  isRaw: false,
  isDetailOpen: false,
  filter: { text: "", model: "", client: "", key: "", minutes: "", failed: false, own: false },
  /** The exchanges that have the text of the filter in them; null while none is looked for. @type {Set<string> | null} */
  found: null,
  isSearching: false,
  /** The groups of the list that are unfolded. @type {Set<string>} */
  unfolded: new Set(),
  /** @type {Map<string, Opened>} */
  opened: new Map(),
  connection: "connecting",
  notice: "",
  /** @type {string[] | null} */
  models: null,
};

/** Changes with all that the list is made of. */
export let version = 0;

/** @type {() => void} */
let draw = () => {};
let isDue = false;

/** @param {() => void} drawAll draws the page; it is called at most once a frame. */
export function drawWith(drawAll) {
  draw = drawAll;
}

export function changed() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    draw();
  });
}

export function listChanged() {
  version += 1;
  changed();
}

/** @param {string} id @returns {Opened} */
export function openedOf(id) {
  let found = state.opened.get(id);
  if (!found) {
    found = {};
    state.opened.set(id, found);
    // Those that were opened long ago are asked for again.
    if (state.opened.size > 50) {
      for (const old of state.opened.keys()) {
        if (state.opened.size <= 25) break;
        if (old !== state.selected && old !== state.other && old !== id) state.opened.delete(old);
      }
    }
  }
  return found;
}

/** What there is of an answer, with the arrival of its tokens. @param {string} id @returns {Live} */
export function answerOf(id) {
  const { detail, live } = openedOf(id);
  return live ?? { answer: detail?.answer ?? {}, events: detail?.events ?? [] };
}
