// Markdown as nodes. What a model wrote is hostile: nothing of it is ever parsed as HTML. The parser's tokens become
// elements of the names below, all text becomes text nodes, and of links only those to the web can be followed.

import MarkdownIt from "./vendor/markdown-it/markdown-it.js";

/** @typedef {import("./vendor/markdown-it/markdown-it.js").Token} Token */

// HTML in it stays text, and nothing is made a link that was not written as one.
const parser = new MarkdownIt("default", { html: false, linkify: false, typographer: false, breaks: true });

/** The elements that a token may open. */
const TAGS = new Set("p h1 h2 h3 h4 h5 h6 ul ol li blockquote table thead tbody tr th td em strong s a".split(" "));
const FOLLOWED = /^(?:https?:\/\/|mailto:)/i;
/** Longer texts are shown as they are: they would be parsed anew with each token that comes. */
export const MOST_CHARACTERS = 200_000;

/** @param {string} text @returns {Node} */
export function markdown(text) {
  const root = document.createElement("div");
  root.className = "markdown";
  if (text.length > MOST_CHARACTERS) root.append(pre(text));
  else addTokens(root, parser.parse(text, {}));
  return root;
}

/** @param {HTMLElement} root @param {Token[]} tokens */
function addTokens(root, tokens) {
  /** @type {HTMLElement[]} */
  const open = [root];
  for (const token of tokens) {
    const into = open[open.length - 1];
    if (token.hidden) continue;
    if (token.nesting === 1) {
      const element = document.createElement(TAGS.has(token.tag) ? below(token.tag) : "span");
      if (token.tag === "a") addLink(element, token.attrGet("href"));
      if (token.tag === "ol") element.setAttribute("start", token.attrGet("start") ?? "1");
      const align = token.attrGet("style")?.match(/^text-align:(left|right|center)$/);
      if (align) element.className = align[1];
      into.append(element);
      open.push(element);
    } else if (token.nesting === -1) {
      if (open.length > 1) open.pop();
    } else {
      addLeaf(into, token);
    }
  }
}

/** Headings in a message are below its own, an h3, for who reads by them. @param {string} tag */
const below = (tag) => tag.replace(/^h([1-6])$/, (_, level) => `h${Math.min(Number(level) + 3, 6)}`);

/** @param {HTMLElement} into @param {Token} token */
function addLeaf(into, token) {
  switch (token.type) {
    case "inline":
      addTokens(into, token.children ?? []);
      break;
    case "fence":
    case "code_block":
      into.append(codeBlock(token.content, token.info.trim().split(/\s+/)[0] ?? ""));
      break;
    case "code_inline": {
      const code = document.createElement("code");
      code.append(token.content);
      into.append(code);
      break;
    }
    case "softbreak":
    case "hardbreak":
      into.append(document.createElement("br"));
      break;
    case "hr":
      into.append(document.createElement("hr"));
      break;
    case "image": {
      // Not loaded: nothing of this page asks another machine.
      const link = document.createElement("a");
      addLink(link, token.attrGet("src"));
      link.append(`[image: ${token.content || token.attrGet("src")}]`);
      into.append(link);
      break;
    }
    default:
      into.append(token.content);
  }
}

/** @param {HTMLElement} element @param {string | null} address */
function addLink(element, address) {
  if (!address || !FOLLOWED.test(address)) return;
  element.setAttribute("href", address);
  element.setAttribute("rel", "noreferrer noopener nofollow");
  element.setAttribute("target", "_blank");
  element.setAttribute("title", address);
}

/** Code with a button that copies it. @param {string} text @param {string} language */
export function codeBlock(text, language) {
  const block = document.createElement("figure");
  block.className = "code";
  const caption = document.createElement("figcaption");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.onclick = async () => {
    const isCopied = await copy(text);
    button.textContent = isCopied ? "Copied" : "Select it to copy it";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  };
  caption.append(language, button);
  block.append(caption, pre(text));
  return block;
}

/** @param {string} text */
function pre(text) {
  const element = document.createElement("pre");
  element.tabIndex = 0;
  element.append(text);
  return element;
}

/** Put a text on the clipboard, which browsers allow on this machine and with https. @param {string} text */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
