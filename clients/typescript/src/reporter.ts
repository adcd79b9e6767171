import { describeField } from "./contract.js";
import { NotReportedError, RequestError, type TidegateError, UnavailableError } from "./errors.js";
import { unwatchExit, watchExit } from "./exit.js";
import { backoff, deadline, later } from "./timing.js";
import type { Item, Outcome, Transport } from "./transport.js";
import type { Usage } from "./types.js";

const lingerMs = 20; // for others to come along
const maxBatch = 1_000; // events of a request
const maxBatchBytes = 512 << 10;
const publishMs = 12_000; // of one try: the edge answers within 8 s
const longestPauseMs = 30_000;
const longestPauseOfFlushMs = 1_000;

/** Is told what nobody else would hear of. `lost` are the events that will not be booked because of it. */
export type OnError = (error: TidegateError, lost: Usage[]) => void;

/** Sends events in the background, a request at a time, so that those which come meanwhile share the next one. */
export class Reporter {
  readonly #transport: Transport;
  readonly #bufferBytes: number;
  readonly #onError: OnError;
  readonly #stop = new AbortController();
  #queue: Item[] = [];
  #bytes = 0;
  #running: Promise<void> | undefined;
  #wake: (() => void) | undefined; // ends the pause at hand
  #flushing = 0; // callers who wait
  #trouble = ""; // what was told last of why events wait
  #most = maxBatch; // fewer, while a proxy on the way takes less

  constructor(transport: Transport, bufferBytes: number, onError: OnError) {
    this.#transport = transport;
    this.#bufferBytes = bufferBytes;
    this.#onError = onError;
  }

  /** Takes an event, or says why not. It does no I/O. */
  add(item: Item): "closed" | "queue_full" | undefined {
    if (this.#stop.signal.aborted) return "closed";
    if (this.#bytes + item.bytes > this.#bufferBytes) return "queue_full";
    this.#queue.push(item);
    this.#bytes += item.bytes;
    watchExit(this);
    this.#running ??= this.#run();
    return undefined;
  }

  /** Waits until what there is is stored or refused, at most so long; false: some is left. It keeps the process alive meanwhile. */
  async flush(ms: number): Promise<boolean> {
    if (this.#running === undefined) return true;
    this.#flushing++;
    this.#wake?.();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
    await Promise.race([this.#running, late]);
    clearTimeout(timer);
    this.#flushing--;
    return this.#queue.length === 0;
  }

  /** Takes no more, and gives up what is left. */
  close(): void {
    const left = this.#queue;
    this.#queue = [];
    this.#bytes = 0;
    this.#stop.abort();
    this.#wake?.();
    unwatchExit(this);
    if (left.length > 0) this.#tell(new NotReportedError("gave_up", `${left.length} usage events could not be sent in time`), left);
  }

  async #run(): Promise<void> {
    await this.#pause(lingerMs);
    for (let failures = 0; this.#queue.length > 0; ) {
      const batch = this.#next();
      const attempt = deadline(publishMs, this.#stop.signal);
      let pauseMs = 0;
      try {
        const outcomes = await this.#transport.publish(batch, attempt.signal);
        if (this.#stop.signal.aborted) break; // they were given up meanwhile
        failures = 0;
        this.#trouble = "";
        this.#most = Math.min(2 * this.#most, maxBatch);
        this.#done(batch, outcomes);
      } catch (err) {
        if (this.#stop.signal.aborted) break;
        if (err instanceof RequestError) { // of the request as a whole: which event is at fault nobody says
          if (batch.length === 1) this.#done(batch, [{ reason: `status_${err.status}`, errors: err.errors }]);
          this.#most = Math.ceil(batch.length / 2);
          continue;
        }
        this.#delayed(err);
        const asked = err instanceof UnavailableError ? (err.retryAfterMs ?? 0) : 0;
        pauseMs = Math.max(Math.min(asked, longestPauseMs), backoff(++failures, this.#flushing > 0 ? longestPauseOfFlushMs : longestPauseMs));
      } finally {
        attempt.end(); // before a pause, in which its timer would keep the process alive
      }
      if (pauseMs > 0) await this.#pause(pauseMs);
    }
    this.#running = undefined;
    unwatchExit(this);
  }

  /** The events of the next request: at least one. */
  #next(): Item[] {
    let bytes = 0;
    let n = 0;
    for (const item of this.#queue) {
      bytes += item.bytes + 1;
      if (n === this.#most || (n > 0 && bytes > maxBatchBytes)) break;
      n++;
    }
    return this.#queue.slice(0, n);
  }

  #done(batch: Item[], outcomes: Outcome[]): void {
    this.#queue.splice(0, batch.length);
    batch.forEach((item, i) => {
      this.#bytes -= item.bytes;
      const refused = outcomes[i];
      if (refused === undefined) return;
      const why = [`a usage event is refused (${refused.reason})`, ...refused.errors.map(describeField)].join(": ");
      this.#tell(new NotReportedError(refused.reason, why, refused.errors), [item]);
    });
  }

  /** Events wait: that is told once for each reason. */
  #delayed(err: unknown): void {
    const why = err instanceof Error ? err.message : String(err);
    if (why === this.#trouble) return;
    this.#trouble = why;
    this.#tell(new UnavailableError(`usage events wait and are sent again: ${why}`, { cause: err }), []);
  }

  #tell(error: TidegateError, lost: Item[]): void {
    this.#onError(error, lost.map((item) => JSON.parse(item.text) as Usage));
  }

  /** Waits, unless somebody flushes or closes. */
  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = later(ms, resolve);
      this.#wake = () => {
        timer.cancel();
        resolve();
      };
    });
  }
}
