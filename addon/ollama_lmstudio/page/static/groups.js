// The list: exchanges grouped by conversation, those with the newest first.

import { state, version } from "./store.js";

/** @typedef {import("./store.js").Row} Row */
/** @typedef {{key: string, ids: Set<string>}} Group */
/** @typedef {{row: Row, group: string, count: number, isMember: boolean}} Item A line of the list. */

/** @type {Map<string, Group>} */
const groups = new Map();
/** @type {Map<string, string>} */
const keys = new Map();

/** Those with the same opening messages, of the same client. @param {Row} row */
function keyOf(row) {
  return row.conversation ? `${row.conversation} ${row.client ?? ""} ${row.key ?? ""}` : row.id;
}

/** @param {Row} row */
export function insert(row) {
  const key = keyOf(row);
  if (keys.get(row.id) !== key) remove(row.id);
  keys.set(row.id, key);
  const group = groups.get(key) ?? { key, ids: new Set() };
  groups.set(key, group);
  group.ids.add(row.id);
}

/** @param {string} id */
export function remove(id) {
  const key = keys.get(id);
  if (key === undefined) return;
  keys.delete(id);
  const group = groups.get(key);
  group?.ids.delete(id);
  if (!group?.ids.size) groups.delete(key);
}

export function clear() {
  groups.clear();
  keys.clear();
}

/** @param {Row} row */
function isWanted(row) {
  const { filter, found } = state;
  if (row.isOwn && !filter.own) return false;
  if (filter.failed && !row.error) return false;
  if (filter.minutes && row.at < Date.now() / 1000 - 60 * Number(filter.minutes)) return false;
  if (filter.model && row.model !== filter.model) return false;
  if (filter.client && row.client !== filter.client) return false;
  if (filter.key && row.key !== filter.key) return false;
  if (!found || found.has(row.id)) return true;
  // What came after the search had begun is found by what its row says.
  const wanted = filter.text.trim().toLowerCase();
  return [row.prompt, row.answer, row.model, row.error].some((text) => text?.toLowerCase().includes(wanted));
}

/** @type {{version: number, items: Item[], rows: Row[]}} */
let last = { version: -1, items: [], rows: [] };

function listed() {
  if (last.version === version) return last;
  /** @type {Row[][]} */
  const shown = [];
  /** @type {Row[]} */
  const rows = [];
  for (const group of groups.values()) {
    const members = [];
    for (const id of group.ids) {
      const row = state.rows.get(id);
      if (row && isWanted(row)) members.push(row);
    }
    if (!members.length) continue;
    if (members.length > 1) members.sort((a, b) => b.at - a.at);
    rows.push(...members);
    shown.push(members);
  }
  shown.sort((a, b) => b[0].at - a[0].at);
  /** @type {Item[]} */
  const items = [];
  for (const members of shown) {
    const group = keys.get(members[0].id) ?? "";
    const unfolded = state.unfolded.has(group) ? members : members.slice(0, 1);
    for (const row of unfolded) items.push({ row, group, count: members.length, isMember: row !== members[0] });
  }
  last = { version, items, rows };
  return last;
}

/** The lines of the list. */
export function items() {
  return listed().items;
}

/** All exchanges that the filter lets through, folded or not. */
export function shownRows() {
  return listed().rows;
}

/** The exchanges of the same conversation. @param {string} id */
export function conversationOf(id) {
  return groups.get(keys.get(id) ?? "")?.ids ?? new Set();
}

/** All values that rows have of a name, for a filter. @param {"model" | "client" | "key"} name */
export function valuesOf(name) {
  const values = new Set();
  for (const row of state.rows.values()) if (row[name] && !row.isOwn) values.add(row[name]);
  return [...values].sort();
}
