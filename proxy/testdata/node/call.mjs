// An application of the official SDK, which knows nothing of Tidegate but an address and headers.
import OpenAI from "openai";

const requests = [];
const ai = new OpenAI({
  apiKey: "sk-the-providers-own-key",
  baseURL: process.env.BASE_URL,
  defaultHeaders: { "X-Tidegate-Token": process.env.TOKEN, "X-Tidegate-Feature": "node" },
  fetch: (...args) => { requests.push(args[0]); return fetch(...args); },
});
const question = { model: "gpt-5", max_completion_tokens: 100, messages: [{ role: "user", content: "What is a marina?" }] };

async function ask(streaming) {
  requests.length = 0;
  try {
    let text = "";
    if (streaming) for await (const chunk of await ai.chat.completions.create({ ...question, stream: true })) text += chunk.choices[0]?.delta?.content ?? "";
    else text = (await ai.chat.completions.create(question)).choices[0].message.content;
    return { text, requests: requests.length };
  } catch (err) {
    return { error: err.constructor.name, status: err.status, code: err.code, remaining: err.error?.tidegate?.remaining_tokens, requests: requests.length };
  }
}

console.log(JSON.stringify([await ask(false), await ask(true)]));
