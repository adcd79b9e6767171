import assert from "node:assert/strict";
import { test } from "node:test";
import { APICallError, embed, embedMany, generateText, streamText, wrapEmbeddingModel, wrapLanguageModel } from "ai";
import { convertArrayToReadableStream, MockEmbeddingModelV4, MockLanguageModelV4 } from "ai/test";
import { RefusedError, UnavailableError } from "tidegate";
import { embeddingModelMiddleware, languageModelMiddleware } from "tidegate/ai-sdk";
import { booked, client, faulty, newPort, setBudget } from "./world.mjs";

const usage = { inputTokens: { total: 120, noCache: 50, cacheRead: 60, cacheWrite: 10 }, outputTokens: { total: 40, text: 15, reasoning: 25 } };
const untold = { inputTokens: { total: undefined, noCache: undefined, cacheRead: undefined, cacheWrite: undefined }, outputTokens: { total: undefined, text: undefined, reasoning: undefined } };
const stop = { unified: "stop", raw: "stop" };
const response = { id: "resp_1", modelId: "gpt-5-mini-2025", timestamp: new Date(0), headers: { "x-request-id": "req_1" } };
const reply = (more) => ({ content: [{ type: "text", text: "A harbour." }], finishReason: stop, usage, warnings: [], response, ...more });
const told = { feature: "chat", provider: "openai", model: "gpt-5-mini-2025", input: 120, output: 40, cache_read: 60, cache_write: 10, reasoning: 25, request: "req_1", response: "resp_1", measured_by: "provider", status: "ok" };

/** A wrapped mock of a port of its own, and what is booked of it. */
function wrapped(mock, options = {}) {
  const port = newPort("ai");
  const { tidegate, told } = client({ port, ...options });
  const model = new MockLanguageModelV4({ provider: "openai.responses", modelId: "gpt-5-mini", ...mock });
  return {
    port, told, tidegate, mock: model,
    model: wrapLanguageModel({ model, middleware: languageModelMiddleware(tidegate, { feature: "chat", ...options.call }) }),
    /** Waits for so many calls. Whatever they held is free again. */
    async booked(rows) {
      assert.equal(await tidegate.flush(), true);
      return (await booked(port, rows, 0)).calls.map(({ id, ...rest }) => rest);
    },
  };
}

/** A stream of these parts; it ends with an error if there is one, and not at all if that is null. */
function streamOf(parts, error) {
  return new ReadableStream({
    pull(controller) {
      if (parts.length > 0) controller.enqueue(parts.shift());
      else if (error === undefined) controller.close();
      else if (error !== null) controller.error(error);
      else return new Promise(() => {});
    },
  });
}
const start = [{ type: "stream-start", warnings: [] }, { type: "response-metadata", id: "resp_1", modelId: "gpt-5-mini-2025", timestamp: new Date(0) }];
const text = [{ type: "text-start", id: "t" }, { type: "text-delta", id: "t", delta: "A harbour" }, { type: "text-delta", id: "t", delta: " for yachts." }];
const finish = [{ type: "text-end", id: "t" }, { type: "finish", finishReason: stop, usage }];
const streaming = (parts, error) => ({ doStream: async () => ({ stream: streamOf([...parts], error), response: { headers: { "x-request-id": "req_1" } } }) });
const question = { prompt: "What is a marina?", maxOutputTokens: 50, maxRetries: 0 };

test("a call is reserved, and settled by what the provider told", async () => {
  let held;
  const w = wrapped({ doGenerate: async () => {
    held = (await w.tidegate.check({})).held_tokens;
    return reply();
  } });
  const { text } = await generateText({ model: w.model, ...question });
  assert.equal(text, "A harbour.");
  assert.ok(held > 50 && held < 100, `${held} tokens were held: the question and 50 of output`);
  assert.deepEqual(await w.booked(1), [told]);
  await generateText({ model: w.model, prompt: "What is a marina?" });
  assert.ok(held > 1024 && held < 1100, `${held} tokens were held for a call without a limit`);
  assert.deepEqual(w.told, []);
});

test("what a call is for is said with it, and not to the provider", async () => {
  const w = wrapped({ doGenerate: async () => reply() });
  const providerOptions = { openai: { user: "x" }, tidegate: { feature: "summary", user_id: "ada", run_id: "run-42" } };
  await generateText({ model: w.model, ...question, providerOptions });
  assert.deepEqual(await w.booked(1), [{ ...told, feature: "summary", user: "ada", run: "run-42" }]);
  assert.deepEqual(w.mock.doGenerateCalls[0].providerOptions, { openai: { user: "x" } });
});

test("a call that is refused is not made, nor tried again", async () => {
  const w = wrapped({ doGenerate: async () => reply(), ...streaming([...start, ...text, ...finish]) });
  await setBudget(w.port, 20);
  const refused = (err) => err instanceof RefusedError && err.verdict.reason === "estimate_exceeds_hard_cap" && /of about 7\d tokens is refused .*0 used and 0 held of 20; it resets at/.test(err.message);
  await assert.rejects(generateText({ model: w.model, ...question, maxRetries: 2 }), refused);
  const errors = [];
  const { fullStream } = streamText({ model: w.model, ...question, maxRetries: 2, onError: ({ error }) => errors.push(error) });
  for await (const part of fullStream) if (part.type === "error") errors.push(part.error);
  assert.equal(errors.length, 2);
  assert.ok(errors.every(refused));
  assert.deepEqual([w.mock.doGenerateCalls.length, w.mock.doStreamCalls.length], [0, 0]);
  assert.deepEqual(await w.booked(0), []);
});

test("while no gate answers, calls are made or not, as was said", async () => {
  const open = wrapped({ doGenerate: async () => reply() }, { url: faulty("gone", 3), whenUnavailable: "fail-open", timeoutMs: 250 });
  await generateText({ model: open.model, ...question });
  assert.deepEqual(await open.booked(1), [told]);
  assert.ok(open.told[0].error instanceof UnavailableError);
  const closed = wrapped({ doGenerate: async () => reply() }, { url: faulty("gone", 1_000), timeoutMs: 250 });
  await assert.rejects(generateText({ model: closed.model, ...question }), (err) => err instanceof RefusedError && err.verdict.reason === "gate_unavailable" && err.cause instanceof UnavailableError);
  assert.equal(closed.mock.doGenerateCalls.length, 0);
});

test("a call that fails is not booked, and one that is aborted may have been read", async () => {
  const failing = wrapped({ doGenerate: async () => { throw new APICallError({ message: "overloaded", url: "", requestBodyValues: {}, statusCode: 529 }); } });
  await assert.rejects(generateText({ model: failing.model, ...question }), /overloaded/);
  assert.deepEqual(await failing.booked(0), []);

  const controller = new AbortController();
  const aborted = wrapped({ doGenerate: ({ abortSignal }) => new Promise((_, reject) => {
    abortSignal.addEventListener("abort", () => reject(abortSignal.reason));
    controller.abort();
  }) });
  await assert.rejects(generateText({ model: aborted.model, ...question, abortSignal: controller.signal }));
  const [call] = await aborted.booked(1);
  assert.deepEqual([call.model, call.output, call.measured_by, call.status], ["gpt-5-mini", 0, "partial", "partial"]);
  assert.ok(call.input > 5 && call.input < 50, `${call.input} tokens of input are estimated`);
});

test("figures that make no sense, or are not told, are estimated", async () => {
  for (const [usage, want] of [
    [untold, { output: 3, measured_by: "estimate" }],
    [undefined, { output: 3, measured_by: "estimate" }],
    [{ inputTokens: { total: Number.NaN }, outputTokens: { total: 40 } }, { output: 3, measured_by: "estimate" }],
    [{ inputTokens: { noCache: 50, cacheRead: 60, cacheWrite: 10 }, outputTokens: { text: 15, reasoning: 25 } }, { input: 120, output: 40, reasoning: 25, measured_by: "provider" }],
    [{ inputTokens: { total: 50, cacheRead: 60, cacheWrite: 10 }, outputTokens: { total: 15, reasoning: 25 } }, { input: 120, output: 40, cache_read: 60, measured_by: "provider" }],
  ]) {
    const w = wrapped({ doGenerate: async () => reply({ usage }) });
    await w.model.doGenerate({ prompt: [{ role: "user", content: [{ type: "text", text: "What is a marina?" }] }] });
    const [call] = await w.booked(1);
    assert.deepEqual({ ...call, ...want }, call);
  }
});

test("a stream is passed on, and settled when it ends", async () => {
  const w = wrapped(streaming([...start, ...text, ...finish]));
  const { textStream } = streamText({ model: w.model, ...question });
  let got = "";
  for await (const delta of textStream) got += delta;
  assert.equal(got, "A harbour for yachts.");
  assert.deepEqual(await w.booked(1), [told]);
});

test("a stream that is cut short is booked as partial", async () => {
  const partial = { ...told, cache_read: 0, cache_write: 0, reasoning: 0, output: 6, measured_by: "partial", status: "partial" };
  const check = async (w, name, want = partial) => {
    const [{ input, ...call }] = await w.booked(1);
    const { input: _, ...rest } = want;
    assert.deepEqual(call, rest, name);
    assert.ok(input > 5 && input < 50, `${name}: ${input} tokens of input are estimated`);
  };
  const aborted = wrapped(streaming([...start, ...text], null));
  const controller = new AbortController();
  for await (const part of streamText({ model: aborted.model, ...question, abortSignal: controller.signal }).fullStream) {
    if (part.type === "text-delta" && part.text.endsWith("yachts.")) controller.abort();
  }
  await check(aborted, "aborted");

  for (const [name, end] of [["cancelled", null], ["left", null], ["lost", new Error("lost")], ["ended early", undefined]]) {
    const w = wrapped(streaming([...start, ...text], end));
    const left = new AbortController();
    const { stream } = await w.model.doStream({ prompt: [{ role: "user", content: [{ type: "text", text: "What is a marina?" }] }], maxOutputTokens: 50, abortSignal: left.signal });
    const reader = stream.getReader();
    for (let i = 0; i < 5; i++) assert.equal((await reader.read()).done, false);
    if (name === "cancelled") await reader.cancel();
    else if (name === "left") left.abort(); // and nobody reads on
    else if (name === "lost") await assert.rejects(reader.read(), end);
    else assert.equal((await reader.read()).done, true);
    await check(w, name);
  }

  const failed = { type: "error", error: new Error("overloaded") };
  const errorFinish = { type: "finish", finishReason: { unified: "error", raw: undefined }, usage: untold };
  const read = async (w) => { for await (const _ of streamText({ model: w.model, ...question, onError() {} }).fullStream); };
  const late = wrapped(streaming([...start, ...text, failed, errorFinish]));
  await read(late);
  await check(late, "failed late", { ...partial, status: "error" });
  const early = wrapped(streaming([...start, failed, errorFinish]));
  await read(early);
  assert.deepEqual(await early.booked(0), [], "failed early");
  const counted = wrapped(streaming([...start, ...text, failed, { ...errorFinish, usage }]));
  await read(counted);
  assert.deepEqual(await counted.booked(1), [{ ...told, status: "error" }]);
});

test("embeddings are metered", async () => {
  const port = newPort("embed");
  const { tidegate } = client({ port });
  const mock = new MockEmbeddingModelV4({ provider: "openai.embedding", modelId: "text-embedding-3-small", maxEmbeddingsPerCall: 2,
    doEmbed: async ({ values }) => ({ embeddings: values.map(() => [1, 2]), usage: values[0] === "untold" ? undefined : { tokens: 5 * values.length }, warnings: [] }) });
  const model = wrapEmbeddingModel({ model: mock, middleware: embeddingModelMiddleware(tidegate, { feature: "search", user_id: "ada" }) });
  assert.equal((await embedMany({ model, values: ["a", "b", "c"] })).embeddings.length, 3);
  await embed({ model, value: "untold" });
  await tidegate.flush();
  const { calls } = await booked(port, 3);
  assert.deepEqual(calls.map((c) => [c.user, c.feature, c.provider, c.model, c.input, c.output, c.measured_by]), [
    ["ada", "search", "openai", "text-embedding-3-small", 10, 0, "provider"],
    ["ada", "search", "openai", "text-embedding-3-small", 5, 0, "provider"],
    ["ada", "search", "openai", "text-embedding-3-small", 3, 0, "estimate"],
  ]);
  await setBudget(port, 10);
  await assert.rejects(embed({ model, value: "a" }), RefusedError);
});

test("a picture in the prompt counts by its bytes, not as text", async () => {
  let held;
  const w = wrapped({ doGenerate: async () => {
    held = (await w.tidegate.check({})).held_tokens;
    return reply();
  } });
  const picture = new Uint8Array(64_000);
  picture.set([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  await generateText({ model: w.model, maxOutputTokens: 50, messages: [{ role: "user", content: [{ type: "text", text: "What is it?" }, { type: "image", image: picture }] }] });
  assert.ok(held > 1_050 && held < 1_200, `${held} tokens were held`);
});
