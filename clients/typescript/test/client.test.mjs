import assert from "node:assert/strict";
import { test } from "node:test";
import { NotReportedError, open, RequestError, UnavailableError } from "tidegate";
import { booked, call, client, faulty, newPort, requestsTo, setBudget, token, tokenOfA, url } from "./world.mjs";

const uuidv7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test("what is reported is booked, once for each id", async () => {
  const port = newPort("report");
  const { tidegate, told } = client({ port });
  assert.equal(tidegate.report({ ...call, user_id: "ada", run_id: "run-42", input_tokens: 1532, output_tokens: 33, request_id: "req_1", response_id: "msg_1",
    details: { cache_read_input_tokens: 1111, cache_write_input_tokens: 418, reasoning_output_tokens: 7 } }), true);
  const same = { ...call, id: "invoice-17", occurred_at: new Date().toISOString(), output_tokens: 5, measured_by: "partial", status: "error" };
  for (let i = 0; i < 2; i++) assert.equal(tidegate.report(same), true);
  assert.equal(await tidegate.flush(), true);
  assert.equal(tidegate.report({ ...call, user_id: undefined }), true);
  assert.equal(await tidegate.close(), true);
  assert.deepEqual(told, []);
  const { calls } = await booked(port, 3);
  for (const { id } of calls) assert.match(id, uuidv7);
  assert.deepEqual(calls.map(({ id, ...rest }) => rest), [
    { user: "ada", run: "run-42", feature: "ocr", provider: "openai", model: "gpt-5-mini", input: 1532, output: 33, cache_read: 1111, cache_write: 418, reasoning: 7, request: "req_1", response: "msg_1", measured_by: "provider", status: "ok" },
    { feature: "ocr", provider: "openai", model: "gpt-5-mini", input: 0, output: 5, cache_read: 0, cache_write: 0, reasoning: 0, measured_by: "partial", status: "error" },
    { feature: "ocr", provider: "openai", model: "gpt-5-mini", input: 0, output: 0, cache_read: 0, cache_write: 0, reasoning: 0, measured_by: "provider", status: "ok" },
  ]);
});

test("more than a request takes is reported in several", async () => {
  const port = newPort("many");
  const { tidegate } = client({ port });
  for (let i = 0; i < 1_500; i++) tidegate.report({ ...call, input_tokens: 1 });
  assert.equal(await tidegate.close(), true);
  assert.equal((await booked(port, 1_500)).calls.length, 1_500);
});

test("a budget answers, holds and refuses", async () => {
  const port = newPort("budget");
  const { tidegate, told } = client({ port });
  const free = await tidegate.check({ ...call, estimated_tokens: 10 });
  assert.deepEqual([free.allowed, free.reason, free.enabled, free.hard_cap_tokens, free.error], [true, "", false, null, undefined]);
  await setBudget(port, 1_000);

  const hold = await tidegate.reserve({ ...call, user_id: "ada", estimated_input_tokens: 300, estimated_output_tokens: 100 });
  assert.equal(hold.allowed, true);
  assert.equal(hold.granted_tokens, 400);
  assert.equal((await tidegate.check({ estimated_tokens: 600 })).allowed, true);
  const refused = await tidegate.check({ estimated_tokens: 601, explain: true });
  assert.deepEqual([refused.allowed, refused.reason, refused.limit, refused.held_tokens, refused.remaining_tokens], [false, "estimate_exceeds_hard_cap", "port", 400, 600]);
  assert.equal(refused.limits[0].limit, "port");

  assert.equal(hold.settle({ input_tokens: 250, output_tokens: 50 }), true);
  assert.equal(await hold.release(), true, "a hold that is settled is not there to be released");
  hold.settle({ input_tokens: 7 });
  await tidegate.flush();
  const { calls } = await booked(port, 2);
  assert.deepEqual(calls.map((c) => [c.user, c.feature, c.provider, c.model, c.input, c.output]), [["ada", "ocr", "openai", "gpt-5-mini", 250, 50], ["ada", "ocr", "openai", "gpt-5-mini", 7, 0]]);

  const unused = await tidegate.reserve({ estimated_tokens: 693 });
  assert.equal(unused.allowed, true);
  await booked(port, 2, 693);
  assert.equal(await unused.release(), true);
  await booked(port, 2, 0);
  const less = await tidegate.reserve({ estimated_tokens: 5_000, accept_less: true });
  assert.equal(less.granted_tokens, 693);
  const none = await tidegate.reserve({ estimated_tokens: 1 });
  assert.deepEqual([none.allowed, none.reason, none.reservation_id], [false, "hard_cap_reached", undefined]);
  assert.equal(await none.release(), true);
  await less.release();
  await tidegate.close();
  assert.deepEqual(told, []);
});

test("what a question says is what limits look at", async () => {
  const port = newPort("limits");
  const { tidegate } = client({ port });
  const question = { ...call, user_id: "ada", run_id: "run-42", estimated_input_tokens: 1_600, estimated_output_tokens: 400 };
  for (const limit of [
    { match: { feature: "ocr" } }, { match: { provider: "openai" } }, { match: { model: "gpt-5*" } }, { match: { user_id: "ada" } }, { match: { run_id: "run-42" } },
    { unit: "weighted", weights: { output: 2 }, hard: 2_100 },
  ]) {
    await setBudget(port, 100_000, [{ name: "tight", window: "day", hard: 1_900, ...limit }]);
    const hold = await tidegate.reserve(question);
    assert.deepEqual([hold.allowed, hold.limit], [false, "tight"], JSON.stringify(limit));
  }
});

test("a question that breaks a rule throws", async () => {
  const port = newPort("wrong");
  const { tidegate } = client({ port });
  const is = (status, field) => (err) => err instanceof RequestError && err.status === status && err.errors[0]?.field === field;
  await assert.rejects(tidegate.check({ estimated_tokens: -1 }), is(422, "estimated_tokens"));
  await assert.rejects(tidegate.check({ estimated_tokens: Number.NaN }), is(422, "estimated_tokens"));
  await assert.rejects(tidegate.check({ estimated_tokens: 2 ** 41 }), is(422, "estimated_tokens"));
  await assert.rejects(tidegate.check({ port_id: "a.b" }), is(422, "port_id"));
  await assert.rejects(tidegate.check({ estimated_token: 1 }), (err) => err instanceof RequestError && err.message.includes("estimated_token"));
  const first = await tidegate.reserve({ idempotency_key: "k", estimated_tokens: 1 });
  assert.equal((await tidegate.reserve({ idempotency_key: "k", estimated_tokens: 1 })).reservation_id, first.reservation_id);
  await assert.rejects(tidegate.reserve({ idempotency_key: "k", estimated_tokens: 2 }), is(409, undefined));
  await tidegate.close();
});

test("an event that will not be booked is told, and holds back no other", async () => {
  const port = newPort("refused");
  const { tidegate, told } = client({ port });
  const bad = { ...call, model: "" };
  assert.equal(tidegate.report(bad), true);
  assert.equal(tidegate.report({ ...call, input_tokens: 3 }), true);
  for (const [usage, field] of [
    [{ ...call, input_tokens: Number.NaN }, "input_tokens"], [{ ...call, output_tokens: 1.5 }, "output_tokens"], [{ ...call, input_tokens: 10n }, "input_tokens"],
    [{ ...call, input_tokens: 2 ** 53 }, "input_tokens"], [{ ...call, details: { reasoning_output_tokens: -1 } }, "details.reasoning_output_tokens"], [{ ...call, port_id: "a b" }, "port_id"], [{ ...call, user_id: "u".repeat(17_000) }, "event"],
  ]) {
    assert.equal(tidegate.report(usage), false);
    const { error, lost } = told.at(-1);
    assert.ok(error instanceof NotReportedError);
    assert.equal(error.errors[0].field, field);
    assert.deepEqual(lost, [usage]);
  }
  told.length = 0;
  await tidegate.flush();
  assert.equal(told.length, 1);
  assert.ok(told[0].error instanceof NotReportedError);
  assert.deepEqual([told[0].error.reason, told[0].error.errors[0].field, told[0].lost[0].model, told[0].lost[0].port_id], ["invalid_field", "model", "", port]);
  assert.equal((await booked(port, 1)).calls[0].input, 3);

  const other = client({ token: tokenOfA, port });
  other.tidegate.report(call);
  await other.tidegate.close();
  assert.equal(other.told[0].error.reason, "port_not_allowed");
  assert.equal(tidegate.report(call), true);
  await tidegate.close();
  assert.equal(tidegate.report(call), false);
  assert.equal(told.at(-1).error.reason, "closed");
});

test("memory is bounded", async () => {
  const { tidegate, told } = client({ port: newPort("full"), url: faulty("gone", 1_000), bufferBytes: 1_000 });
  const taken = Array.from({ length: 20 }, () => tidegate.report(call));
  const fit = taken.indexOf(false);
  assert.ok(fit > 2 && fit < 10, `${fit} fit`);
  assert.ok(taken.slice(fit).every((ok) => !ok));
  assert.equal(told[0].error.reason, "queue_full");
  assert.equal(await tidegate.close(300), false);
  const { error, lost } = told.at(-1);
  assert.deepEqual([error.reason, lost.length, lost[0].feature], ["gave_up", fit, "ocr"]);
});

test("what is too large on the way is sent in parts", async () => {
  const port = newPort("large");
  const { tidegate, told } = client({ port, url: faulty("large", 1_000) }); // takes 2,000 bytes
  for (let i = 0; i < 40; i++) tidegate.report({ ...call, input_tokens: 1 });
  tidegate.report({ ...call, x: "x".repeat(2_000) });
  assert.equal(await tidegate.close(), true);
  assert.equal((await booked(port, 40)).calls.length, 40);
  assert.deepEqual(told.map(({ error, lost }) => [error.reason, lost.length]), [["status_413", 1]]);
});

test("events without an answer are sent again, and booked once", async () => {
  for (const fault of ["lost", "busy"]) {
    const port = newPort(fault);
    const { tidegate, told } = client({ port, url: faulty(fault, fault === "lost" ? 2 : 1) });
    const began = performance.now();
    tidegate.report({ ...call, input_tokens: 9 });
    assert.equal(await tidegate.close(), true);
    assert.ok(fault === "lost" || performance.now() - began >= 1_000, "it did not wait as long as Retry-After says");
    assert.deepEqual(told.map(({ error, lost }) => [error instanceof UnavailableError, lost.length]), [[true, 0]], "it is told once that events wait");
    assert.deepEqual((await booked(port, 1)).calls.map((c) => c.input), [9]);
  }
});

test("a question is asked again within its time, and as late as it is told", async () => {
  const port = newPort("again");
  await setBudget(port, 1_000);
  let began = performance.now();
  const patient = client({ port, url: faulty("busy") });
  assert.equal((await patient.tidegate.check({ estimated_tokens: 1 })).allowed, true);
  assert.ok(performance.now() - began >= 1_000, "it did not wait as long as Retry-After says");
  assert.deepEqual(patient.told, []);

  began = performance.now();
  const hasty = client({ port, url: faulty("busy-for-long"), timeoutMs: 30_000 });
  const verdict = await hasty.tidegate.check({ estimated_tokens: 1 });
  assert.deepEqual([verdict.allowed, verdict.reason, verdict.error.status], [false, "gate_unavailable", 503]);
  assert.ok(performance.now() - began < 20_000, "it waited although there was no time for another try");

  // The first try's hold is there, and its answer is lost. However often it is asked again, that makes one more.
  const lost = client({ port, url: faulty("lost", 3) });
  const hold = await lost.tidegate.reserve({ estimated_tokens: 100 });
  assert.equal(hold.allowed, true);
  await booked(port, 0, 200, true);
  await hold.release();
  await booked(port, 0, 100, true);
});

test("while no gate answers, what was said beforehand is the answer", async () => {
  for (const [whenUnavailable, allowed] of [["fail-open", true], ["fail-closed", false]]) {
    const url = faulty("gone", 1_000);
    const { tidegate, told } = client({ port: newPort("away"), url, whenUnavailable, timeoutMs: 300 });
    const hold = await tidegate.reserve({ ...call, estimated_tokens: 1 });
    assert.deepEqual([hold.allowed, hold.reason, hold.used_tokens], [allowed, "gate_unavailable", undefined]);
    assert.ok(hold.error instanceof UnavailableError);
    const before = await requestsTo(url);
    assert.equal((await tidegate.check({})).allowed, allowed);
    assert.equal(await requestsTo(url), before + 1, "an outage slows down every call");
    assert.equal(await hold.release(), true, "nothing is held");
    assert.equal(told.length, 1, "it is told once");
    assert.equal(hold.settle({ input_tokens: 1 }), true);
    await tidegate.close(0);
  }
  const other = client({ port: "a", url: faulty("not-tidegate", 1_000), whenUnavailable: "fail-open", timeoutMs: 300 });
  assert.match((await other.tidegate.check({})).error.message, /not Tidegate/);
  const { tidegate, told } = client({ port: "a", token: "tg_not-a-token" });
  const verdict = await tidegate.check({});
  assert.deepEqual([verdict.allowed, verdict.error.status, told.length], [false, 401, 1]);
  const narrow = client({ port: newPort("theirs"), token: tokenOfA, whenUnavailable: "fail-open" });
  assert.deepEqual([(await narrow.tidegate.check({})).error.status], [403]);
});

test("a hold that is not released is told", async () => {
  const { tidegate, told } = client({ port: newPort("unreleased"), url: faulty("gone-for-delete", 1_000), timeoutMs: 300 });
  const hold = await tidegate.reserve({ estimated_tokens: 1 });
  assert.equal(hold.allowed, true);
  assert.equal(await hold.release(), false);
  assert.match(told[0].error.message, /was not released, it will expire/);
});

test("a caller may give up", async () => {
  const { tidegate, told } = client({ port: newPort("abort"), url: faulty("mute", 1_000) });
  const controller = new AbortController();
  const verdict = tidegate.check({}, { signal: controller.signal });
  setTimeout(() => controller.abort(new Error("gave up")), 20);
  await assert.rejects(verdict, /gave up/);
  await assert.rejects(tidegate.check({}, { signal: controller.signal }), /gave up/);
  assert.deepEqual(told, []);
});

test("options that cannot be meant throw at once", () => {
  const good = { url, token, port: "a", whenUnavailable: "fail-open" };
  for (const [option, words] of [
    [{ whenUnavailable: undefined }, /whenUnavailable must be/], [{ port: "a.b" }, /port_id/], [{ url: "127.0.0.1:8080" }, /url must be/], [{ url: `${url}?token=1` }, /url must be/],
    [{ token: "" }, /token must be/], [{ timeoutMs: -1 }, /timeoutMs/], [{ bufferBytes: Number.NaN }, /bufferBytes/],
  ]) assert.throws(() => open({ ...good, ...option }), words);
});
