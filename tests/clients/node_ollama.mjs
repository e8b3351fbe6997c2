// What the official library for JavaScript makes of its answers.

import { Ollama } from "ollama";

const client = new Ollama({ host: process.argv[3] });

const user = (text, rest) => [{ role: "user", content: text, ...rest }];

async function all(stream) {
  const parts = [];
  for await (const part of await stream) parts.push(part);
  return parts;
}

// What every client does

export async function chat_stream(model, text) {
  const parts = await all(client.chat({ model, messages: user(text), stream: true }));
  const last = parts.at(-1);
  return {
    parts: parts.map((part) => part.message.content),
    finish: last.done_reason,
    tokens: [last.prompt_eval_count, last.eval_count],
    whole: parts,
  };
}

const ADD = {
  type: "function",
  function: {
    name: "add",
    description: "Add two numbers.",
    parameters: {
      type: "object",
      required: ["a", "b"],
      properties: { a: { type: "integer" }, b: { type: "integer" } },
    },
  },
};

export async function tools(model, text) {
  const messages = user(text);
  const { message: asked } = await client.chat({ model, messages, tools: [ADD] });
  messages.push(asked);
  const calls = asked.tool_calls.map((call) => call.function);
  for (const { name, arguments: numbers } of calls) {
    messages.push({ role: "tool", tool_name: name, content: String(numbers.a + numbers.b) });
  }
  const { message: answered } = await client.chat({ model, messages, tools: [ADD] });
  return {
    calls: calls.map((call) => ({ name: call.name, arguments: call.arguments })),
    answer: answered.content,
  };
}

const COUNTRY = {
  type: "object",
  properties: {
    name: { type: "string" },
    capital: { type: "string" },
    languages: { type: "array", items: { type: "string" } },
  },
  required: ["name", "capital", "languages"],
};

export async function structured(model, text) {
  const { message } = await client.chat({ model, messages: user(text), format: COUNTRY });
  return JSON.parse(message.content);
}

export async function think(model, how) {
  const parts = await all(client.chat({ model, messages: user("hi"), think: how, stream: true }));
  return {
    thinking: parts.filter(({ message }) => message.thinking).map(({ message }) => message.thinking),
    parts: parts.filter(({ message }) => !message.thinking).map(({ message }) => message.content),
    whole: parts.map(({ message }) => message),
  };
}

export async function image(model, base64) {
  const messages = user("What is this?", { images: [Buffer.from(base64, "base64")] });
  return (await client.chat({ model, messages })).message.content;
}

export async function embed(model, input) {
  const answer = await client.embed({ model, input });
  return { vectors: answer.embeddings, tokens: answer.prompt_eval_count };
}

export async function models() {
  return (await client.list()).models;
}

export async function show(model) {
  const shown = await client.show({ model });
  return { capabilities: shown.capabilities, info: shown.model_info, modelfile: shown.modelfile };
}

async function failed(action) {
  try {
    await action();
  } catch (error) {
    return { error: error.error ?? error.message, status: error.status_code ?? -1 };
  }
  return {};
}

export async function fail(model) {
  const parts = [];
  const problem = await failed(async () => {
    for await (const part of await client.chat({ model, messages: user("hi"), stream: true })) {
      parts.push(part.message.content);
    }
  });
  return { ...problem, parts };
}

export async function leave(model) {
  const stream = await client.chat({ model, messages: user("hi"), stream: true });
  const { value } = await stream[Symbol.asyncIterator]().next();
  stream.abort();
  return value.message.content;
}

// What only Ollama's own libraries do

export const chat = (model, more) => client.chat({ model, messages: user("hi"), ...more });

export const fail_whole = (model) => failed(() => chat(model, {}));

export const generate = (model) => client.generate({ model, prompt: "hi", system: "Be brief" });

export const generate_stream = (model) => all(client.generate({ model, prompt: "hi", stream: true }));

export async function generate_context(model) {
  const { context } = await client.generate({ model, prompt: "I am Ada" });
  return client.generate({ model, prompt: "Who am I?", context });
}

export async function embeddings(model) {
  return (await client.embeddings({ model, prompt: "one" })).embedding;
}

export async function running(model) {
  await client.generate({ model, prompt: "hi", keep_alive: "10m" });
  return (await client.ps()).models;
}

const names = async () => (await models()).map((model) => model.name);

export async function aliases(model) {
  const created = await all(client.create({ model: "Ada", from: model, system: "You are Ada.", stream: true }));
  await client.copy({ source: "ada", destination: "lovelace" });
  return {
    created,
    described: await show("lovelace"),
    names: await names(),
    answer: await chat("lovelace", {}),
    loaded: (await client.ps()).models.map((model) => model.model),
    deleted: [
      (await client.delete({ model: "ada" })).status,
      (await client.delete({ model: "lovelace" })).status,
    ],
    left: await names(),
    again: await failed(() => client.delete({ model: "ada" })),
  };
}

export const pull = (model) => all(client.pull({ model, stream: true }));

export const pull_whole = (model) => client.pull({ model });

export const push = (model) => all(client.push({ model, stream: true }));
