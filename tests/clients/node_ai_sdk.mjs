// What Vercel's AI SDK makes of its answers, with the provider for Ollama.

import { embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { createOllama } from "ollama-ai-provider-v2";
import { z } from "zod";

const ollama = createOllama({ baseURL: `${process.argv[3]}/api` });

// Errors go to the caller, not to the console.
const quiet = { onError() {} };

async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

export async function chat_stream(model, text) {
  const result = streamText({ model: ollama(model), prompt: text });
  const parts = await all(result.textStream);
  const usage = await result.usage;
  return {
    parts,
    finish: await result.finishReason,
    tokens: [usage.inputTokens, usage.outputTokens],
  };
}

const add = tool({
  description: "Add two numbers.",
  inputSchema: z.object({ a: z.number().int(), b: z.number().int() }),
  execute: ({ a, b }) => String(a + b),
});

export async function tools(model, text) {
  const result = streamText({ model: ollama(model), prompt: text, tools: { add }, stopWhen: stepCountIs(2) });
  const [asked] = await result.steps;
  return {
    calls: asked.toolCalls.map((call) => ({ name: call.toolName, arguments: call.input })),
    answer: await result.text,
  };
}

const country = z.object({ name: z.string(), capital: z.string(), languages: z.array(z.string()) });

export async function structured(model, text) {
  const output = Output.object({ schema: country });
  return (await generateText({ model: ollama(model), prompt: text, output })).output;
}

export async function think(model, how) {
  const providerOptions = { ollama: { think: how } };
  const parts = await all(streamText({ model: ollama(model), prompt: "hi", providerOptions }).fullStream);
  const texts = (type) => parts.filter((part) => part.type === type).map((part) => part.text);
  return { thinking: texts("reasoning-delta"), parts: texts("text-delta") };
}

export async function image(model, base64) {
  const content = [
    { type: "text", text: "What is this?" },
    { type: "image", image: base64, mediaType: "image/png" },
  ];
  return (await generateText({ model: ollama(model), messages: [{ role: "user", content }] })).text;
}

export async function embed(model, values) {
  const { embeddings, usage } = await embedMany({ model: ollama.embedding(model), values });
  return { vectors: embeddings, tokens: usage.tokens };
}

export async function fail(model) {
  const parts = [];
  for await (const part of streamText({ model: ollama(model), prompt: "hi", ...quiet }).fullStream) {
    if (part.type === "text-delta") parts.push(part.text);
    if (part.type === "error") {
      // It expects an object where Ollama has a string, and calls every error by its status alone.
      return { parts, error: JSON.parse(part.error.responseBody).error, status: part.error.statusCode };
    }
  }
  return { parts };
}

export async function leave(model) {
  const controller = new AbortController();
  const result = streamText({ model: ollama(model), prompt: "hi", abortSignal: controller.signal, ...quiet });
  const { value } = await result.textStream[Symbol.asyncIterator]().next();
  controller.abort();
  return value;
}
