import { type FieldError, RequestError, UnavailableError } from "./errors.js";
import type { Item, Outcome, Transport } from "./transport.js";

/** What an answer of the edge may say: a problem document, or what became of events. */
interface Reply {
  title?: string;
  detail?: string;
  errors?: FieldError[];
  events?: { status?: string; reason?: string; field?: string; value?: string; rule?: string }[];
}

/** Speaks with the role `edge`: docs/http.md. */
export class HTTPTransport implements Transport {
  readonly #base: string;
  readonly #token: string;

  constructor(url: string, token: string) {
    this.#base = `${url.replace(/\/+$/, "")}/v1/`;
    this.#token = token;
  }

  async ask(what: "check" | "reserve", port: string, question: object, signal: AbortSignal): Promise<object> {
    const [response, reply] = await this.#send("POST", `ports/${port}/${what}`, JSON.stringify(question), signal);
    if (response.status === 200 && reply !== undefined) return reply;
    throw fault(response, reply);
  }

  async release(port: string, reservation: string, signal: AbortSignal): Promise<void> {
    const [response, reply] = await this.#send("DELETE", `ports/${port}/reservations/${encodeURIComponent(reservation)}`, undefined, signal);
    if (response.status !== 204) throw fault(response, reply);
  }

  async publish(items: readonly Item[], signal: AbortSignal): Promise<Outcome[]> {
    const [response, reply] = await this.#send("POST", "usage", `[${items.map((item) => item.text).join(",")}]`, signal);
    // All accepted, some, or none: it says so of each. Whatever else there is says nothing of the events.
    if (reply?.events?.length !== items.length || ![200, 207, 403, 422].includes(response.status)) throw fault(response, reply);
    return reply.events.map((event): Outcome => {
      if (event.status === "accepted") return undefined;
      const { reason = "refused", field, value = "", rule = "" } = event;
      return { reason, errors: field === undefined ? [] : [{ field, value, rule }] };
    });
  }

  async close(): Promise<void> {}

  async #send(method: string, path: string, body: string | undefined, signal: AbortSignal): Promise<[Response, Reply | undefined]> {
    try {
      const response = await fetch(this.#base + path, {
        method,
        signal,
        headers: { authorization: `Bearer ${this.#token}`, ...(body !== undefined && { "content-type": "application/json" }) },
        ...(body !== undefined && { body }),
      });
      return [response, parse(await response.text())];
    } catch (err) {
      throw new UnavailableError(`no answer from ${this.#base}: ${why(err)}`, { cause: err });
    }
  }
}

function parse(text: string): Reply | undefined {
  try {
    const reply: unknown = JSON.parse(text);
    return typeof reply === "object" && reply !== null ? reply : undefined;
  } catch {
    return undefined; // empty, or another server's
  }
}

/** Node says "fetch failed", and why in the cause. */
function why(err: unknown): string {
  if (!(err instanceof Error)) return String(err);
  return err.cause instanceof Error && err.cause.message !== "" ? err.cause.message : err.message;
}

/** An answer that is none. Only what says that the question is wrong is worth no second try. */
function fault(response: Response, reply: Reply | undefined): RequestError | UnavailableError {
  const { status } = response;
  const message = reply?.detail ?? reply?.title ?? `answered ${status} ${response.statusText}`;
  if ([400, 409, 413, 422].includes(status)) return new RequestError(status, message, reply?.errors);
  const seconds = Number(response.headers.get("retry-after") ?? Number.NaN);
  return new UnavailableError(message, { status, retryAfterMs: seconds >= 0 ? seconds * 1000 : undefined });
}
