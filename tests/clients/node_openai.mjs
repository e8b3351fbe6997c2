// What OpenAI's library for JavaScript makes of the answers of `/v1`.

import OpenAI, { APIError } from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: `${process.argv[3]}/v1`, apiKey: "any", maxRetries: 0 });
const completions = client.chat.completions;

const user = (content) => [{ role: "user", content }];

// The chunk with the counts has no choice.
const textOf = (chunk) => chunk.choices.map((choice) => choice.delta.content ?? "").join("");

export async function chat_stream(model, text) {
  const request = { model, messages: user(text), stream: true, stream_options: { include_usage: true } };
  const chunks = [];
  for await (const chunk of await completions.create(request)) chunks.push(chunk);
  const { prompt_tokens, completion_tokens } = chunks.at(-1).usage;
  const reasons = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.finish_reason));
  return { parts: chunks.map(textOf), finish: reasons.find(Boolean), tokens: [prompt_tokens, completion_tokens] };
}

const ADD = zodFunction({ name: "add", parameters: z.object({ a: z.number().int(), b: z.number().int() }) });

export async function tools(model, text) {
  const messages = user(text);
  const asked = (await completions.parse({ model, messages, tools: [ADD] })).choices[0].message;
  messages.push(asked);
  const calls = asked.tool_calls.map((call) => ({ name: call.function.name, arguments: call.function.parsed_arguments }));
  asked.tool_calls.forEach((call, at) => {
    const { a, b } = calls[at].arguments;
    messages.push({ role: "tool", tool_call_id: call.id, content: String(a + b) });
  });
  const answered = await completions.create({ model, messages, tools: [ADD] });
  return { calls, answer: answered.choices[0].message.content };
}

const COUNTRY = z.object({ name: z.string(), capital: z.string(), languages: z.array(z.string()) });

export async function structured(model, text) {
  const response_format = zodResponseFormat(COUNTRY, "country");
  const completion = await completions.parse({ model, messages: user(text), response_format });
  return completion.choices[0].message.parsed;
}

export async function think(model, how) {
  const effort = how === true ? {} : { reasoning_effort: how === false ? "none" : how };
  const deltas = [];
  for await (const chunk of await completions.create({ model, messages: user("hi"), stream: true, ...effort })) {
    deltas.push(...chunk.choices.map((choice) => choice.delta));
  }
  // Two names of LM Studio's for one thing, neither of which the library knows.
  const thinking = (delta) => delta.reasoning_content || delta.reasoning;
  return {
    thinking: deltas.map(thinking).filter(Boolean),
    parts: deltas.filter((delta) => !thinking(delta)).map((delta) => delta.content ?? ""),
  };
}

export async function image(model, base64) {
  const parts = [
    { type: "text", text: "What is this?" },
    { type: "image_url", image_url: { url: `data:image/png;base64,${base64}` } },
  ];
  return (await completions.create({ model, messages: user(parts) })).choices[0].message.content;
}

// It asks for base64 by itself, and decodes it.
export async function embed(model, texts, options = {}) {
  const answer = await client.embeddings.create({ model, input: texts, ...options });
  return { vectors: answer.data.map((entry) => Array.from(entry.embedding)) };
}

export async function models() {
  const listed = [];
  for await (const model of client.models.list()) listed.push({ name: model.id });
  return listed;
}

export async function fail(model) {
  const parts = [];
  try {
    for await (const chunk of await completions.create({ model, messages: user("hi"), stream: true })) {
      parts.push(textOf(chunk));
    }
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    // LM Studio's own error is a string, where the library expects an object.
    return { parts, error: error.error?.message ?? error.error ?? error.message, status: error.status ?? -1 };
  }
  return { parts };
}

export async function leave(model) {
  const stream = await completions.create({ model, messages: user("hi"), stream: true });
  for await (const chunk of stream) {
    stream.controller.abort();
    return textOf(chunk);
  }
}
