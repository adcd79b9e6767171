// Publish an event, check, reserve, settle and release, each answer on a line:
//
//   npm ci
//   NATS_URL=nats://127.0.0.1:4222 node index.mjs marina-7
import { open } from "./tidegate.mjs";

const port = process.argv[2] ?? "marina-7";
const print = (step, answer) => console.log(JSON.stringify({ step, ...answer }));
// What the call is for. Limits look at it, so questions and reports name the same.
const call = { feature: "summary", user_id: "ada", run_id: "run-42", provider: "openai", model: "gpt-5-mini" };
const estimate = { estimated_input_tokens: 1_600, estimated_output_tokens: 400 };

const tidegate = await open(process.env.NATS_URL ?? "nats://127.0.0.1:4222", port);
try {
  // The least a service does: ask before the call, report after it.
  const verdict = await tidegate.check({ ...call, ...estimate });
  print("check", verdict);
  if (verdict.allowed) {
    const id = await tidegate.report({ ...call, input_tokens: 1_400, output_tokens: 260 });
    print("report", { id });
  }

  // Better: hold the tokens meanwhile, so that nobody else can spend them too.
  const hold = await tidegate.reserve({ ...call, ...estimate });
  print("reserve", hold);
  if (hold.allowed) {
    const id = await tidegate.report({ ...call, reservation_id: hold.reservation_id, input_tokens: 1_300, output_tokens: 240 });
    print("settle", { id });
  }

  // A call that is not made after all gives them back.
  const unused = await tidegate.reserve({ ...call, feature: "ocr", estimated_tokens: 500 });
  print("reserve", unused);
  if (unused.allowed) print("release", await tidegate.release(unused.reservation_id));
} finally {
  await tidegate.close();
}
