// Do what standard input asks for, with the functions of a client's script, until it ends: run.py for Node.js.
//
//     node run.mjs SCRIPT URL

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// Standard output is for the answers; a library has its say elsewhere.
console.log = console.info = console.error;

const script = await import(pathToFileURL(process.argv[2]));
for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(line);
  let answer;
  try {
    answer = { result: await script[name](...args) };
  } catch (error) {
    answer = { raised: error.stack ?? String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
