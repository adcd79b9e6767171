import assert from "node:assert/strict";
import { test } from "node:test";
import { RequestError, UnavailableError } from "tidegate";
import { open } from "tidegate/nats";
import { booked, call, natsURL, newPort, setBudget } from "./world.mjs";

test("the same over NATS", async () => {
  const port = newPort("nats");
  const told = [];
  const tidegate = await open({ nats: { servers: natsURL }, port, whenUnavailable: "fail-closed", onError: (error, lost) => told.push({ error, lost }) });
  await setBudget(port, 10_000);

  const hold = await tidegate.reserve({ ...call, estimated_tokens: 400 });
  assert.equal(hold.granted_tokens, 400);
  await booked(port, 0, 400);
  hold.settle({ input_tokens: 250, output_tokens: 50 });
  const usage = { ...call, input_tokens: 7, id: "once", occurred_at: new Date().toISOString() };
  tidegate.report(usage);
  tidegate.report(usage);
  for (let i = 0; i < 600; i++) tidegate.report({ ...call, input_tokens: 1 }); // several messages
  const elsewhere = newPort("nats");
  tidegate.report({ ...call, port_id: elsewhere, input_tokens: 3 });
  assert.equal(await tidegate.flush(), true);
  const { calls } = await booked(port, 602);
  assert.equal(calls.reduce((sum, c) => sum + c.input + c.output, 0), 300 + 7 + 600);
  assert.equal((await booked(elsewhere, 1)).calls[0].input, 3);

  const unused = await tidegate.reserve({ estimated_tokens: 500 });
  assert.equal(await unused.release(), true);
  await booked(port, 602, 0);
  const refused = await tidegate.check({ estimated_tokens: 10_000 });
  assert.deepEqual([refused.allowed, refused.reason, refused.used_tokens], [false, "estimate_exceeds_hard_cap", 907]);
  await assert.rejects(tidegate.check({ estimated_token: 1 }), (err) => err instanceof RequestError && err.status === 400 && err.message.includes("estimated_token"));
  assert.deepEqual(told, []);

  await tidegate.close();
  const closed = await tidegate.check({});
  assert.deepEqual([closed.allowed, closed.reason], [false, "gate_unavailable"]);
  assert.ok(closed.error instanceof UnavailableError);
});

test("options are looked at before NATS", async () => {
  await assert.rejects(open({ nats: { servers: "127.0.0.1:1" }, port: "a.b", whenUnavailable: "fail-open" }), /port_id/);
});
