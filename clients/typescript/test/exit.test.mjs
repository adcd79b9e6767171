import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { booked, call, faulty, newPort, token, url } from "./world.mjs";

const run = promisify(execFile);

/** A program that reports and ends, as its code says. */
const program = (port, address, code) =>
  run(process.execPath, ["--input-type=module", "--eval", `
    import { open } from "tidegate";
    const tidegate = open({ url: ${JSON.stringify(address)}, token: ${JSON.stringify(token)}, port: ${JSON.stringify(port)}, whenUnavailable: "fail-closed" });
    tidegate.report(${JSON.stringify({ ...call, input_tokens: 5 })});
    ${code}`], { cwd: import.meta.dirname, timeout: 30_000, env: { ...process.env, NODE_OPTIONS: "" } });

test("a program that ends flushes, or says what is lost", async () => {
  const [ends, exits, fails, gone, late] = [newPort("ends"), newPort("exits"), newPort("fails"), newPort("gone"), newPort("late")];
  const [ended, exited, failed, gaveUp, gaveUpLate] = await Promise.all([
    program(ends, url, ""),
    program(exits, url, "process.exit(0)"),
    program(fails, url, "setTimeout(() => { throw new Error('as asked') }, 1)").catch((err) => err),
    program(gone, faulty("gone", 1_000), ""),
    program(late, faulty("gone", 1_000), "setTimeout(() => {}, 300)"), // some tries are over then
  ]);
  assert.equal(ended.stderr, "");
  assert.deepEqual((await booked(ends, 1)).calls.map((c) => c.input), [5]);
  for (const { stderr } of [exited, failed, gaveUp, gaveUpLate]) assert.match(stderr, /tidegate: 1 usage events could not be sent in time[^]*input_tokens: 5/);
});
