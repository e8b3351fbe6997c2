// Messages as they were said: Markdown, thoughts, pictures, and tool calls with what came back.

import { plural } from "./format.js";
import { codeBlock, markdown } from "./markdown.js";
import { changed, state } from "./store.js";
import { html, nothing } from "./vendor/lit-html/lit-html.js";

/** @typedef {import("./store.js").Answer} Answer */
/** @typedef {import("./store.js").Call} Call */
/** @typedef {import("./store.js").Message} Message */
/** @typedef {import("./store.js").Request} Request */

/** Long texts that are the same in each request are folded. */
const FOLDED_CHARACTERS = 600;
const JSON_BEGINS = /^\s*[{[]/;
const MOST_NODES = 2000;

/** Nodes of texts that are shown, so that only a text that has changed is parsed anew.
 *  @type {Map<string, {text: string, node: Node}>} */
const nodes = new Map();

/** @param {string} key where the text stands @param {string} text @param {(text: string) => Node} make */
function kept(key, text, make) {
  const known = nodes.get(key);
  if (known?.text === text) return known.node;
  if (nodes.size > MOST_NODES) nodes.clear();
  const node = make(text);
  nodes.set(key, { text, node });
  return node;
}

/** @param {string} key @param {string} text */
function rendered(key, text) {
  return state.isRaw ? html`<pre class="raw" tabindex="0">${text}</pre>` : kept(key, text, markdown);
}

/** JSON or another text with a button that copies it. @param {string} key @param {string} text @param {string} [name] */
export function block(key, text, name = JSON_BEGINS.test(text) ? "json" : "") {
  return kept(key, text, () => codeBlock(text, name));
}

/** The messages of a request: what it repeats is folded, what is new in it is marked.
 *  @param {string} id @param {Request} request */
export function thread(id, request) {
  const { messages, newAt } = request;
  const earlier = messages.filter((message) => message.at < newAt);
  const added = messages.filter((message) => message.at >= newAt);
  const results = resultsOf(messages);
  return html`
    ${request.problem ? html`<p class="problem">The request: ${request.problem}</p>` : nothing}
    ${request.leftOut ? html`<p class="note">${plural(request.leftOut, "message")} before these are left out.</p>` : nothing}
    ${request.tools.length ? toolList(id, request) : nothing}
    ${options(request)}
    ${
      earlier.length
        ? html`<details class="earlier">
          <summary>${plural(earlier.length, "earlier message")}, as in the request before</summary>
          ${messageList(id, earlier, false, results)}
        </details>`
        : nothing
    }
    ${messageList(id, added, earlier.length > 0, results)}
    ${request.texts.map((text, at) => html`<article class="message"><h3>text ${at + 1}</h3>${rendered(`${id} e${at}`, text)}</article>`)}`;
}

/** @param {string} id @param {Request} request */
function toolList(id, request) {
  return html`<details class="tools">
    <summary>${plural(request.tools.length, "tool")}: ${request.tools.map((tool) => tool.name || "?").join(", ")}</summary>
    ${request.tools.map(
      (tool, at) => html`<details class="tool">
        <summary><code>${tool.signature}</code></summary>
        ${tool.description ? html`<p>${tool.description}</p>` : nothing}
        ${tool.schema ? block(`${id} s${at}`, tool.schema) : nothing}
      </details>`,
    )}
  </details>`;
}

/** @param {Request} request */
function options(request) {
  const given = Object.entries(request.options);
  if (!given.length) return nothing;
  return html`<ul class="options" aria-label="Options of the request">
    ${given.map(([name, value]) => {
      const text = String(value);
      return text.length > 60 || text.includes("\n")
        ? html`<li><details><summary>${name}</summary><pre tabindex="0">${text}</pre></details></li>`
        : html`<li>${name} <b>${text}</b></li>`;
    })}
  </ul>`;
}

/** @param {string} id @param {Message[]} messages @param {boolean} areNew @param {Map<Call, Message>} results */
export function messageList(id, messages, areNew, results = resultsOf(messages)) {
  // A result stands under its call, if that is here.
  const calls = new Set(messages.flatMap((message) => message.calls ?? []));
  const taken = new Set([...results].flatMap(([call, message]) => (calls.has(call) ? message : [])));
  return messages.filter((message) => !taken.has(message)).map((message) => messageBox(id, message, results, areNew));
}

/** The results of tool calls: by the ids of the calls or the names of the tools, else in their order.
 *  @param {Message[]} messages @returns {Map<Call, Message>} */
export function resultsOf(messages) {
  /** @type {Map<Call, Message>} */
  const found = new Map();
  /** @type {Call[]} */
  let open = [];
  for (const message of messages) {
    if (message.calls) open = [...message.calls];
    if (message.role !== "tool" && !message.answers) continue;
    const { answers } = message;
    const at = answers ? open.findIndex((call) => answers === call.id || answers === call.name) : 0;
    const [call] = at < 0 ? [] : open.splice(at, 1);
    if (call) found.set(call, message);
  }
  return found;
}

/** @param {string} id @param {Message} message @param {Map<Call, Message>} results @param {boolean} isNew */
function messageBox(id, message, results, isNew) {
  const key = `${id} ${message.at}`;
  const text = message.text ?? "";
  const isFolded = text.length > FOLDED_CHARACTERS && ["system", "developer"].includes(message.role);
  const shown = text ? rendered(key, text) : nothing;
  return html`<article class="message ${roleClass(message.role)} ${isNew ? "new" : ""}">
    <h3>${message.role}${message.answers ? html` <code>${message.answers}</code>` : nothing}${isNew ? html` <span class="tag">new</span>` : nothing}</h3>
    ${thoughts(key, message.thinking)}
    ${isFolded ? html`<details><summary>${plural(text.length, "character")}: ${text.slice(0, 80)}…</summary>${shown}</details>` : shown}
    ${(message.files ?? []).map(file)}
    ${(message.calls ?? []).map((call, at) => callCard(`${key} c${at}`, call, results.get(call)))}
  </article>`;
}

/** @param {string} role */
function roleClass(role) {
  return ["system", "user", "assistant", "tool"].includes(role) ? role : "other";
}

/** @param {string} key @param {string | undefined} text */
function thoughts(key, text) {
  if (!text) return nothing;
  return html`<details class="thinking"><summary>thinking, ${plural(text.length, "character")}</summary>${rendered(`${key} t`, text)}</details>`;
}

/** @param {import("./store.js").Attachment} file */
function file(file) {
  const pixels = file.width ? `, ${file.width} × ${file.height} pixels` : "";
  const what = [`${file.type}${pixels}`, file.size].filter(Boolean).join(", ");
  if (!file.src) return html`<p class="note">[${what}]</p>`;
  return html`<figure class="picture">
    <a href=${file.src} target="_blank"><img src=${file.src} alt="Picture in the message, ${what}" loading="lazy"></a>
    <figcaption>${what}</figcaption>
  </figure>`;
}

/** @param {string} key @param {Call} call @param {Message} [result] */
function callCard(key, call, result) {
  return html`<section class="call" role="group" aria-label="Tool call ${call.name}">
    <h4>${call.name} ${call.id ? html`<code>${call.id}</code>` : nothing}</h4>
    ${call.arguments === "{}" ? html`<p class="note">no arguments</p>` : block(`${key} a`, call.arguments)}
    ${
      result
        ? html`<h4>came back</h4>
          ${result.text ? block(`${key} r`, result.text, "result") : nothing}${(result.files ?? []).map(file)}`
        : nothing
    }
  </section>`;
}

/** What the client got, and what came back for the tools that it calls.
 *  @param {string} id @param {Answer} answer @param {boolean} isRunning @param {Map<Call, Message>} [results] */
export function answerBox(id, answer, isRunning, results) {
  const key = `${id} answer`;
  const hasAnswer = answer.text || answer.thinking || answer.calls?.length;
  return html`
    ${answer.error ? html`<p class="error" role="alert"><b>✗</b> ${answer.error}</p>` : nothing}
    ${
      hasAnswer || isRunning
        ? html`<article class="message assistant answer" aria-busy=${isRunning ? "true" : "false"}>
          <h3>assistant <span class="tag">${isRunning ? "answers" : "answer"}</span>${rawButton()}</h3>
          ${thoughts(key, answer.thinking)}
          ${answer.text ? rendered(key, answer.text) : nothing}
          ${(answer.calls ?? []).map((call, at) => callCard(`${key} c${at}`, call, results?.get(call)))}
          ${isRunning ? html`<span class="cursor" aria-hidden="true"></span>` : nothing}
        </article>`
        : nothing
    }
    ${(answer.problems ?? []).map((problem) => html`<p class="problem">${problem}</p>`)}
    ${answer.other ? html`<pre class="raw" tabindex="0">${answer.other}</pre>` : nothing}
    ${answer.numbers?.length ? numbers(answer.numbers) : nothing}`;
}

function rawButton() {
  const toggle = () => {
    state.isRaw = !state.isRaw;
    changed();
  };
  return html`<button type="button" class="raw-button" aria-pressed=${state.isRaw ? "true" : "false"} @click=${toggle}
    title="As it was written (r)">raw</button>`;
}

/** @param {[string, string][]} lines */
export function numbers(lines) {
  return html`<dl class="numbers">${lines.map(([name, text]) => html`<div><dt>${name}</dt><dd>${text}</dd></div>`)}</dl>`;
}
