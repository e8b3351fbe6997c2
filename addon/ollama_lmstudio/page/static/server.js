// What is asked of mitmweb, and what it tells.

import { clear, insert, remove } from "./groups.js";
import { changed, listChanged, openedOf, state } from "./store.js";

/** @typedef {import("./store.js").Detail} Detail */

let socket = /** @type {WebSocket | null} */ (null);
let followed = "";
let wait = 1000;

export function connect() {
  const address = new URL("updates", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  socket = new WebSocket(address);
  socket.onopen = () => {
    wait = 1000;
    followed = "";
    state.connection = "live";
    changed();
    follow();
  };
  socket.onmessage = (event) => told(JSON.parse(event.data));
  socket.onclose = async () => {
    state.connection = "lost";
    changed();
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, 10_000);
    if ((await asksForLogin()) && state.connection === "lost") state.connection = "login";
    changed();
  };
}

/** Whether mitmweb is there and does not know this browser any more: it has begun anew, with another token. */
async function asksForLogin() {
  try {
    return (await fetch("static/icon.svg")).status === 403;
  } catch {
    return false;
  }
}

/** @param {any} message see updates.py */
function told(message) {
  if (message.reset) {
    state.rows.clear();
    clear();
  }
  for (const id of message.removed ?? []) {
    state.rows.delete(id);
    remove(id);
  }
  for (const row of message.rows ?? []) {
    const before = state.rows.get(row.id);
    state.rows.set(row.id, row);
    insert(row);
    const isShown = row.id === state.selected || row.id === state.other;
    if (isShown && JSON.stringify(before) !== JSON.stringify(row)) refresh(row.id);
  }
  if (message.answer) {
    const { live } = openedOf(message.answer.id);
    if (live) {
      live.answer.text = (live.answer.text ?? "") + (message.answer.text ?? "");
      live.answer.thinking = (live.answer.thinking ?? "") + (message.answer.thinking ?? "");
      live.answer.calls = message.answer.calls ?? live.answer.calls;
      live.events = live.events.concat(message.answer.events ?? []);
    }
    changed();
  } else {
    listChanged();
  }
}

/** Ask to be told of the answers that are shown and on their way; each is told from its beginning. */
export function follow() {
  const ids = [state.selected, state.other].filter((id) => id && state.rows.get(id)?.isRunning);
  const wanted = JSON.stringify({ follow: ids });
  if (wanted === followed || socket?.readyState !== WebSocket.OPEN) return;
  followed = wanted;
  for (const id of ids) openedOf(id).live = { answer: {}, events: [] };
  socket.send(wanted);
}

/** @param {string} path @param {RequestInit} [init] */
export async function ask(path, init) {
  const response = await fetch(path, init);
  if (response.status === 403) throw new Error("mitmweb asks for its login: reload this page");
  const value = await response.json();
  if (!response.ok) throw new Error(value.error ?? response.statusText);
  return value;
}

/** @param {string} id @param {"" | "/sides" | "/conversation"} part @param {"detail" | "sides" | "turns"} name */
async function load(id, part, name) {
  const opened = openedOf(id);
  try {
    opened[name] = await ask(`exchanges/${id}${part}`);
    opened.error = "";
    if (name === "detail" && !opened.detail?.row.isRunning) opened.live = undefined;
  } catch (error) {
    opened.error = error instanceof Error ? error.message : String(error);
  }
  changed();
}

/** Have what the tab shows of an exchange. @param {string} id */
export function need(id) {
  if (!id) return;
  const opened = openedOf(id);
  if (!opened.detail && !opened.error) load(id, "", "detail");
  if (state.tab === "conversation" && !opened.turns) load(id, "/conversation", "turns");
  if (["client", "changes", "lmstudio", "events"].includes(state.tab) && !opened.sides) load(id, "/sides", "sides");
}

/** @param {string} id */
function refresh(id) {
  const opened = openedOf(id);
  const isRunning = state.rows.get(id)?.isRunning;
  if (isRunning && opened.detail) {
    follow();
    return;
  }
  load(id, "", "detail").then(follow);
  // What is not shown is asked for when it is.
  opened.sides = opened.turns = undefined;
  need(id);
}

/** @type {AbortController | null} */
let search = null;

/** Look for the text of the filter in all that was said. */
export async function find() {
  search?.abort();
  const text = state.filter.text.trim();
  state.found = text ? new Set() : null;
  state.isSearching = Boolean(text);
  listChanged();
  if (!text) return;
  search = new AbortController();
  const { signal } = search;
  try {
    const response = await fetch(`search?q=${encodeURIComponent(text)}`, { signal });
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
      const lines = (rest + part.value).split("\n");
      rest = lines.pop() ?? "";
      for (const id of lines) state.found?.add(id);
      listChanged();
    }
  } catch (error) {
    if (signal.aborted) return;
    state.notice = `The search has ended: ${error}`;
  }
  state.isSearching = false;
  listChanged();
}

export async function loadModels() {
  try {
    state.models = await ask("models");
  } catch (error) {
    state.notice = `The models are not known: ${error instanceof Error ? error.message : error}`;
  }
  changed();
}

/** @param {string} id @param {object} wanted @returns {Promise<string>} the id of the new exchange */
export async function askAgain(id, wanted) {
  const xsrf = document.querySelector('meta[name="xsrf"]')?.getAttribute("content") ?? "";
  const made = await ask(`exchanges/${id}/again`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-XSRFToken": xsrf },
    body: JSON.stringify(wanted),
  });
  return made.id;
}
