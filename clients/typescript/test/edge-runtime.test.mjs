import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import vm from "node:vm";
import { booked, call, newPort, token, url } from "./world.mjs";

// What every runtime of the web has, and nothing of Node's.
const web = { AbortController, AbortSignal, clearTimeout, console, crypto, DOMException, fetch, performance, setTimeout: (...args) => Number(setTimeout(...args)), TextEncoder, URL };

test("it needs nothing but the web's standards", async () => {
  const context = vm.createContext({ ...web });
  const modules = new Map();
  const load = async (address) => {
    if (!modules.has(address)) modules.set(address, new vm.SourceTextModule(await readFile(fileURLToPath(address), "utf8"), { context, identifier: address }));
    return modules.get(address);
  };
  const main = await load(import.meta.resolve("tidegate"));
  await main.link((specifier, from) => load(new URL(specifier, from.identifier).href));
  await main.evaluate();

  const port = newPort("edge");
  const tidegate = main.namespace.open({ url, token, port, whenUnavailable: "fail-closed" });
  const hold = await tidegate.reserve({ ...call, estimated_tokens: 10 });
  assert.equal(hold.allowed, true);
  assert.equal(hold.settle({ input_tokens: 4 }), true);
  assert.equal(await tidegate.close(), true);
  assert.equal((await booked(port, 1)).calls[0].input, 4);
});
