import { describeField, maxEventBytes, uuidv7, wrongNumber, wrongPort } from "./contract.js";
import { type FieldError, NotReportedError, RequestError, type TidegateError, UnavailableError } from "./errors.js";
import { type OnError, Reporter } from "./reporter.js";
import { backoff, type Deadline, deadline, sleep } from "./timing.js";
import type { Transport } from "./transport.js";
import type { Hold, Question, ReserveQuestion, Settlement, Usage, Verdict } from "./types.js";

export interface Options {
  /**
   * What check and reserve answer while no gate does. `fail-open`: an outage never stops an AI call, and caps may be overrun meanwhile.
   * `fail-closed`: nothing is spent unchecked. There is no default.
   */
  whenUnavailable: "fail-open" | "fail-closed";
  /** The tenant of calls that name none. */
  port?: string | undefined;
  /** How long check, reserve and release take at most, in milliseconds. Default 3,000. */
  timeoutMs?: number | undefined;
  /** How much may wait to be reported, in bytes of JSON. Default 8 MiB, some 20,000 events. */
  bufferBytes?: number | undefined;
  /**
   * Hears what nobody else would: an event that will not be booked (with the event), that events wait, a hold that was not
   * released, that no gate answers. Default: console.error.
   */
  onError?: OnError | undefined;
}

/** What a call of check or reserve may be given. */
export interface AskOptions {
  /** Gives up when it aborts: the promise rejects with its reason. */
  signal?: AbortSignal | undefined;
}

const longestPauseMs = 1_000; // between two tries of a question

/** A client of Tidegate. `open` makes one. */
export class Tidegate {
  readonly #transport: Transport;
  readonly #allowed: boolean; // while no gate answers
  readonly #port: string | undefined;
  readonly #timeoutMs: number;
  readonly #onError: OnError;
  readonly #reporter: Reporter;
  #away = false; // nobody answered the last question

  /** @internal Use `open`. */
  constructor(transport: Transport, options: Options) {
    const { whenUnavailable, port, timeoutMs = 3_000, bufferBytes = 8 << 20, onError = print } = options;
    if (whenUnavailable !== "fail-open" && whenUnavailable !== "fail-closed") {
      throw new TypeError('tidegate: whenUnavailable must be "fail-open" or "fail-closed": say what a check answers while no gate does');
    }
    const wrong = port === undefined ? wrongNumber({ timeoutMs, bufferBytes }) : (wrongPort(port) ?? wrongNumber({ timeoutMs, bufferBytes }));
    if (wrong !== undefined) throw new TypeError(`tidegate: options: ${describeField(wrong)}`);
    this.#transport = transport;
    this.#allowed = whenUnavailable === "fail-open";
    this.#port = port;
    this.#timeoutMs = timeoutMs;
    this.#onError = (error, lost) => {
      try {
        onError(error, lost);
      } catch (err) {
        print(error, lost);
        console.error("tidegate: onError threw:", err);
      }
    };
    this.#reporter = new Reporter(transport, bufferBytes, this.#onError);
  }

  /**
   * Reports a finished call, in the background. It does no I/O and never throws. False: the event will not be booked
   * (`bufferBytes` are full, it breaks the contract, or the client is closed), which `onError` is told, with the event.
   * True is no promise yet: what the edge refuses, `onError` is told later.
   */
  report(usage: Usage): boolean {
    const error = this.#take(usage);
    if (error !== undefined) this.#onError(error, [usage]);
    return error === undefined;
  }

  #take(usage: Usage): NotReportedError | undefined {
    const port = usage.port_id ?? this.#port;
    const wrong = wrongPort(port) ?? wrongNumber(usage);
    if (wrong !== undefined) return notReported("invalid_field", wrong);
    const at = usage.occurred_at === undefined ? Date.now() : Date.parse(usage.occurred_at);
    const id = usage.id ?? uuidv7(at >= 0 ? at : Date.now()); // of a time that is none the edge will say so
    let text: string;
    try {
      text = JSON.stringify({ ...usage, id, port_id: port });
    } catch (err) {
      return new NotReportedError("invalid_field", `a usage event is no JSON: ${err}`);
    }
    const bytes = new TextEncoder().encode(text).length;
    if (bytes > maxEventBytes) return notReported("too_large", { field: "event", value: `${bytes} bytes`, rule: `must be at most ${maxEventBytes} bytes` });
    const reason = this.#reporter.add({ id, port: port as string, text, bytes });
    if (reason === undefined) return undefined;
    return new NotReportedError(reason, reason === "closed" ? "a usage event came after close()" : "a usage event does not fit into bufferBytes: reports come faster than they are sent");
  }

  /**
   * Asks whether the port may spend so much now. It holds nothing: of two callers at once both may be allowed the last
   * tokens. It throws RequestError if the question breaks a rule, and nothing else: when no gate answers, `allowed` is what
   * `whenUnavailable` says, and `error` is there.
   */
  async check(question: Question, options: AskOptions = {}): Promise<Verdict> {
    const { port, rest } = this.#address(question);
    return this.#ask("check", port, rest, options);
  }

  /** Asks like check, and holds the estimate if the answer is yes, so that no number of callers can spend the same tokens. */
  async reserve(question: ReserveQuestion, options: AskOptions = {}): Promise<Hold> {
    const { port, rest } = this.#address(question);
    const verdict = await this.#ask("reserve", port, rest, options);
    let reservation = verdict.reservation_id; // of the first settle or release only
    const end = () => {
      const id = reservation;
      reservation = undefined;
      return id;
    };
    const { feature, provider, model, user_id, run_id } = question;
    return Object.assign(verdict, {
      settle: (usage: Settlement): boolean =>
        this.report({ feature, provider, model, user_id, run_id, port_id: port, ...given(usage), reservation_id: end() } as Usage),
      release: async (): Promise<boolean> => {
        const id = end();
        return id === undefined || (await this.#release(port, id));
      },
    });
  }

  /** Waits until what was reported is stored or refused, at most 10 s, or so long; false: some still waits. It never rejects. */
  flush(ms = 10_000): Promise<boolean> {
    return this.#reporter.flush(ms);
  }

  /** Flushes, gives up what is left after 10 s, or so long (`onError` is told), and disconnects; false: some was given up. Call it last. */
  async close(ms = 10_000): Promise<boolean> {
    const all = await this.#reporter.flush(ms);
    this.#reporter.close();
    await this.#transport.close();
    return all;
  }

  /** The port goes into the address, the rest into the body. */
  #address<Q extends Question>(question: Q): { port: string; rest: Omit<Q, "port_id"> } {
    const { port_id = this.#port, ...rest } = question;
    const wrong = wrongPort(port_id) ?? wrongNumber(rest);
    if (wrong !== undefined) throw new RequestError(422, describeField(wrong), [wrong]);
    return { port: port_id as string, rest };
  }

  async #ask(what: "check" | "reserve", port: string, question: object, { signal }: AskOptions): Promise<Verdict> {
    signal?.throwIfAborted();
    const within = deadline(this.#timeoutMs, signal);
    // A hold of the first try may be there, though no answer came; it expires. Other tries have a key, so that they make one
    // more at most. The first has none, since a gate holds from memory only without.
    const repeated = what === "reserve" ? { idempotency_key: crypto.randomUUID(), ...question } : question;
    try {
      const verdict = await this.#repeat(within, async (again) => {
        const answer = (await this.#transport.ask(what, port, again ? repeated : question, within.signal)) as Verdict;
        if (typeof answer.allowed !== "boolean") throw new UnavailableError("what answers is not Tidegate");
        return answer;
      });
      this.#away = false;
      return verdict;
    } catch (err) {
      signal?.throwIfAborted();
      if (!(err instanceof UnavailableError)) throw err;
      if (!this.#away) this.#onError(new UnavailableError(`no gate answers, calls are ${this.#allowed ? "allowed" : "refused"} meanwhile: ${err.message}`, { cause: err }), []);
      this.#away = true;
      return { allowed: this.#allowed, reason: "gate_unavailable", error: err };
    } finally {
      within.end();
    }
  }

  async #release(port: string, reservation: string): Promise<boolean> {
    const within = deadline(this.#timeoutMs);
    try {
      await this.#repeat(within, () => this.#transport.release(port, reservation, within.signal));
      return true;
    } catch (err) {
      this.#onError(new UnavailableError(`a hold of port ${port} was not released, it will expire: ${err instanceof Error ? err.message : err}`, { cause: err }), []);
      return false;
    } finally {
      within.end();
    }
  }

  /** Tries again while there is time for it; during an outage once only, so that it slows down nobody. */
  async #repeat<T>(within: Deadline, attempt: (again: boolean) => Promise<T>): Promise<T> {
    for (let failures = 0; ; ) {
      try {
        return await attempt(failures > 0);
      } catch (err) {
        if (!(err instanceof UnavailableError) || this.#away || isLasting(err.status)) throw err;
        const pause = Math.max(err.retryAfterMs ?? 0, backoff(++failures, longestPauseMs));
        if (pause >= within.leftMs()) throw err;
        await sleep(pause, within.signal);
      }
    }
  }
}

/** Whether asking again changes nothing: the token or the address is wrong. */
function isLasting(status: number | undefined): boolean {
  return status !== undefined && status >= 400 && status < 500 && status !== 408 && status !== 429;
}

/** Without what is undefined, which is as good as left out. */
function given(usage: Settlement): Settlement {
  return Object.fromEntries(Object.entries(usage).filter(([, value]) => value !== undefined)) as Settlement;
}

function notReported(reason: string, wrong: FieldError): NotReportedError {
  return new NotReportedError(reason, `a usage event is not reported (${reason}): ${describeField(wrong)}`, [wrong]);
}

function print(error: TidegateError, lost: Usage[]): void {
  console.error(`tidegate: ${error.message}`, ...lost);
}
