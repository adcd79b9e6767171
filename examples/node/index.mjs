// Check, reserve, settle and release, each answer on a line; over HTTP, or over NATS if there is a NATS_URL:
//
//   (cd ../../clients/typescript && npm ci && npm run build)
//   npm ci
//   TIDEGATE_URL=http://127.0.0.1:8080 TIDEGATE_TOKEN=tg_… node index.mjs marina-7
//   NATS_URL=nats://127.0.0.1:4222 node index.mjs marina-7
import { open } from "tidegate";
import { open as openNATS } from "tidegate/nats";

const { NATS_URL, TIDEGATE_URL = "http://127.0.0.1:8080", TIDEGATE_TOKEN } = process.env;
const options = { port: process.argv[2] ?? "marina-7", whenUnavailable: "fail-closed" };
const tidegate = NATS_URL ? await openNATS({ nats: { servers: NATS_URL }, ...options }) : open({ url: TIDEGATE_URL, token: TIDEGATE_TOKEN, ...options });

const print = (step, answer) => console.log(JSON.stringify({ step, ...answer }));
// What the call is for. Limits look at it, so questions and reports name the same.
const call = { feature: "summary", user_id: "ada", run_id: "run-42", provider: "openai", model: "gpt-5-mini" };
const estimate = { estimated_input_tokens: 1_600, estimated_output_tokens: 400 };

// The least a service does: ask before the call, report after it.
const verdict = await tidegate.check({ ...call, ...estimate });
print("check", verdict);
if (verdict.allowed) print("report", { taken: tidegate.report({ ...call, input_tokens: 1_400, output_tokens: 260 }) });

// Better: hold the tokens meanwhile, so that nobody else can spend them too.
const hold = await tidegate.reserve({ ...call, ...estimate });
print("reserve", hold);
if (hold.allowed) print("settle", { taken: hold.settle({ input_tokens: 1_300, output_tokens: 240 }) });

// A call that is not made after all gives them back.
const unused = await tidegate.reserve({ ...call, feature: "ocr", estimated_tokens: 500 });
print("reserve", unused);
if (unused.allowed) print("release", { released: await unused.release() });

await tidegate.close(); // sends what still waits
