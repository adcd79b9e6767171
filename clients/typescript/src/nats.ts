import { connect, type Msg, type NatsConnection, type NodeConnectionOptions } from "@nats-io/transport-node";
import { type Options, Tidegate } from "./client.js";
import { maxEventBytes } from "./contract.js";
import { RequestError, UnavailableError } from "./errors.js";
import type { Item, Outcome, Transport } from "./transport.js";

/** How to reach NATS. */
export interface NATSOptions extends Options {
  /**
   * What `connect` of `@nats-io/transport-node` takes: `servers`, `user`, `pass`, `tls`, …. Unless said otherwise it waits for a server
   * that is not there yet, reconnects for ever, and receives answers below `_INBOX.<port>`, so that NATS can bind a user to its port.
   */
  nats: NodeConnectionOptions;
}

/** Makes a client that speaks NATS, once it is connected. */
export async function open(options: NATSOptions): Promise<Tidegate> {
  const { nats, port } = options;
  const transport = new NATSTransport();
  const client = new Tidegate(transport, options); // before the connection: it looks at the options
  await transport.connect({ maxReconnectAttempts: -1, waitOnFirstConnect: true, ...(port !== undefined && { inboxPrefix: `_INBOX.${port}` }), ...nats });
  return client;
}

/** Speaks docs/wire.md. */
class NATSTransport implements Transport {
  #connection!: NatsConnection;
  #connected = true;

  async connect(options: NodeConnectionOptions): Promise<void> {
    this.#connection = await connect(options);
    void this.#watch();
  }

  async #watch(): Promise<void> {
    for await (const status of this.#connection.status()) {
      if (status.type === "disconnect") this.#connected = false;
      if (status.type === "reconnect") this.#connected = true;
    }
  }

  async ask(what: "check" | "reserve", port: string, question: object, signal: AbortSignal): Promise<object> {
    const reply = await this.#request(`ai.budget.${what}.${port}`, question, signal);
    return reply.json();
  }

  async release(port: string, reservation: string, signal: AbortSignal): Promise<void> {
    await this.#request(`ai.budget.release.${port}`, { reservation_id: reservation }, signal);
  }

  /** What NATS acknowledges is stored. What the ledger will not book, the quarantine keeps. */
  async publish(items: readonly Item[], signal: AbortSignal): Promise<Outcome[]> {
    await Promise.all(messages(items).map(async ([port, text]) => {
      const reply = await this.#send(`ai.usage.${port}`, text, signal);
      const ack = reply.json<{ stream?: string; error?: { description?: string } }>();
      if (ack.stream === undefined) throw new UnavailableError(`JetStream did not store usage events: ${ack.error?.description ?? reply.string()}`);
    }));
    return items.map(() => undefined);
  }

  /** Everything has been acknowledged, or given up. (To drain would fail while NATS is away.) */
  close(): Promise<void> {
    return this.#connection.close();
  }

  async #request(subject: string, question: object, signal: AbortSignal): Promise<Msg> {
    const reply = await this.#send(subject, JSON.stringify(question), signal);
    const code = Number(reply.headers?.get("Nats-Service-Error-Code") || 0);
    if (code === 0) return reply;
    const message = reply.headers?.get("Nats-Service-Error") ?? "";
    throw [400, 409, 413].includes(code) ? new RequestError(code, message) : new UnavailableError(message, { status: code });
  }

  async #send(subject: string, payload: string, signal: AbortSignal): Promise<Msg> {
    // Without a connection it would wait in a buffer, and be asked long after its caller gave up.
    if (!this.#connected) throw new UnavailableError(`${subject}: there is no connection to NATS`);
    try {
      return await until(signal, this.#connection.request(subject, payload, { timeout: 60_000 }));
    } catch (err) {
      throw new UnavailableError(`no answer to ${subject}: ${err instanceof Error ? err.message : err}`, { cause: err });
    }
  }
}

/** Events of one port share a message. The smallest have some 90 bytes, so that fewer fit than the 256 that it may hold. */
function messages(items: readonly Item[]): [port: string, text: string][] {
  const open = new Map<string, { texts: string[]; bytes: number }>();
  const full: [string, string][] = [];
  const close = (port: string, texts: string[]) => full.push([port, texts.length === 1 ? (texts[0] as string) : `[${texts.join(",")}]`]);
  for (const { port, text, bytes } of items) {
    let message = open.get(port);
    if (message !== undefined && message.bytes + bytes + 2 > maxEventBytes) {
      close(port, message.texts);
      message = undefined;
    }
    if (message === undefined) open.set(port, (message = { texts: [], bytes: 0 }));
    message.texts.push(text);
    message.bytes += bytes + 1;
  }
  for (const [port, { texts }] of open) close(port, texts);
  return full;
}

/** The answer, unless the signal aborts first. */
async function until<T>(signal: AbortSignal, answer: Promise<T>): Promise<T> {
  signal.throwIfAborted();
  let stop!: () => void;
  const aborted = new Promise<never>((_, reject) => (stop = () => reject(signal.reason)));
  signal.addEventListener("abort", stop);
  try {
    return await Promise.race([answer, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
