// A Tidegate client for Node.js: plain JSON over the official NATS client. Copy
// this file into your service. The fields are explained in docs/wire.md.
import { jetstream } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

// open connects to NATS as the service of one port (tenant). It waits for a server that
// is not there yet, and keeps reconnecting for ever; user, pass and the like go into
// options. ({ waitOnFirstConnect: false } makes it throw instead of waiting.)
export async function open(servers, port, options = {}) {
  const nc = await connect({
    servers,
    maxReconnectAttempts: -1,
    waitOnFirstConnect: true,
    inboxPrefix: `_INBOX.${port}`, // so that NATS permissions can bind replies to the port
    ...options,
  });
  const js = jetstream(nc);

  // A refusal is a normal answer ({ allowed: false, reason }). What throws is a
  // fault, or that no gate answered: then it is for you to decide whether the call
  // may be made.
  const ask = async (subject, question) => {
    const reply = await nc.request(`${subject}.${port}`, JSON.stringify(question), { timeout: 2_000 });
    const code = reply.headers?.get("Nats-Service-Error-Code");
    if (code) throw new Error(`${subject}: ${code} ${reply.headers.get("Nats-Service-Error")}`);
    return reply.json();
  };

  return {
    // May the port spend { estimated_tokens } now, or the two parts of them? Writes nothing. Name { feature,
    // provider, model, user_id, run_id } as the report will: a limit on one of them does
    // not match a question that leaves it out. A refusal's limit says which one it was.
    check: (question) => ask("ai.budget.check", question),

    // A check that also holds the tokens, until they are settled by report({
    // reservation_id }), released, or expired.
    reserve: (question) => ask("ai.budget.reserve", question),

    // Gives a hold back: the call was not made.
    release: (reservation_id) => ask("ai.budget.release", { reservation_id }),

    // Reports a finished AI call, and tries again for a minute, since the tokens are
    // spent. The id stays the same, so it is booked once however often it is sent.
    // Do not await it where the user waits.
    async report(usage) {
      const event = { v: 1, id: uuidv7(), measured_by: "provider", status: "ok", ...usage };
      for (let tries = 1; ; tries++) {
        try {
          await js.publish(`ai.usage.${port}`, JSON.stringify(event)); // no msgID: the ledger knows the event's id
          return event.id;
        } catch (err) {
          if (tries === 60 || nc.isClosed()) throw err;
          await sleep(1_000);
        }
      }
    },

    // Sends what is still to be sent and disconnects. Await your reports first.
    close: () => nc.drain(),
  };
}

// uuidv7 is an id that tells its time, from which Tidegate takes the period.
function uuidv7(now = Date.now()) {
  const ms = now.toString(16).padStart(12, "0");
  return `${ms.slice(0, 8)}-${ms.slice(8)}-7${randomUUID().slice(15)}`;
}
