import type { Tidegate } from "./client.js";
import { maxTokens } from "./contract.js";
import { RefusedError } from "./errors.js";
import type { Call, Details, Hold } from "./types.js";

/** The tokens that a provider told. */
export interface Tokens {
  input_tokens: number;
  output_tokens?: number;
  details?: Details;
}

/** What a call is about to be. */
export interface Plan extends Call {
  provider: string;
  model: string;
  input: number; // tokens, estimated
  output: number;
  signal: AbortSignal | undefined;
}

/** Reserves a call. It throws RefusedError if that must not be made. */
export async function begin(tidegate: Tidegate, plan: Plan): Promise<Metered> {
  const { input, output, signal, ...call } = plan;
  const question = { ...call, estimated_input_tokens: Math.min(input, maxTokens), estimated_output_tokens: Math.min(output, maxTokens - Math.min(input, maxTokens)) };
  const hold = await tidegate.reserve(question, { signal });
  if (!hold.allowed) throw new RefusedError(hold, question);
  return new Metered(hold, question.estimated_input_tokens, signal);
}

/** A call under way. How it ends decides what is booked, as in docs/meter.md; only the first end counts. */
export class Metered {
  readonly #hold: Hold;
  readonly #input: number;
  readonly #signal: AbortSignal | undefined;
  readonly #aborted = () => this.cut();
  #ended = false;
  #cameBytes = 0; // of text, thought or tool calls
  #error = false; // the reply says that it failed
  #names: { model?: string; request_id?: string; response_id?: string } = {};

  constructor(hold: Hold, input: number, signal: AbortSignal | undefined) {
    this.#hold = hold;
    this.#input = input;
    this.#signal = signal;
  }

  /** Something of the reply has come. */
  came(text: string): void {
    this.#cameBytes += new TextEncoder().encode(text).length;
  }

  /** The reply names itself. What an event may not carry is left out: the tokens matter more. */
  answered(reply: { id?: string | undefined; modelId?: string | undefined } | undefined, headers?: Record<string, string | undefined>): void {
    const { id, modelId } = reply ?? {};
    const request = requestIDHeaders.map((name) => headers?.[name]).find((value) => value !== undefined);
    if (fits(modelId, 128)) this.#names.model = modelId;
    if (fits(id, 256)) this.#names.response_id = id;
    if (fits(request, 256)) this.#names.request_id = request;
  }

  /** Reads a reply. If it is not as it should be, the caller has it all the same. */
  read(look: () => void): void {
    try {
      look();
    } catch {
      this.finished(undefined);
    }
  }

  /** An error stands in the reply. More of it may come. */
  erred(): void {
    this.#error = true;
  }

  /** The reply is whole, and told these tokens, or none. */
  finished(told: Tokens | undefined): void {
    const status = this.#error ? "error" : "ok";
    if (told !== undefined) this.#settle({ ...told, measured_by: "provider", status });
    else if (!this.#error) this.#settle({ ...this.#estimate(), measured_by: "estimate", status });
    else if (this.#cameBytes > 0) this.#settle({ ...this.#estimate(), measured_by: "partial", status });
    else this.#release();
  }

  /** The reply will not be whole. What the provider counted nobody knows: this is the least. */
  cut(): void {
    this.#settle({ ...this.#estimate(), measured_by: "partial", status: this.#error ? "error" : "partial" });
  }

  /** There is no reply. A provider that was left alone with the question may have read it; one that said no has not. */
  failed(err: unknown): void {
    if (this.#signal?.aborted || (err instanceof Error && ["AbortError", "TimeoutError"].includes(err.name))) this.cut();
    else this.#release();
  }

  /** Passes a stream on, part by part, and looks at each. */
  watch<Part>(stream: ReadableStream<Part>, look: (part: Part) => void): ReadableStream<Part> {
    const reader = stream.getReader();
    // A reader that aborts need not cancel, nor read on.
    if (this.#signal?.aborted) this.cut();
    else if (!this.#ended) this.#signal?.addEventListener("abort", this.#aborted);
    return new ReadableStream<Part>(
      {
        pull: async (controller) => {
          try {
            const { done, value } = await reader.read();
            if (done) {
              this.cut(); // unless it has said that it is whole
              controller.close();
              return;
            }
            this.read(() => look(value));
            controller.enqueue(value);
          } catch (err) {
            this.cut();
            controller.error(err);
          }
        },
        cancel: (reason) => {
          this.cut();
          return reader.cancel(reason);
        },
      },
      { highWaterMark: 0 }, // nothing is read before somebody wants it
    );
  }

  #estimate(): Tokens {
    return { input_tokens: this.#input, output_tokens: textTokens(this.#cameBytes) };
  }

  #settle(usage: Parameters<Hold["settle"]>[0]): void {
    if (this.#end()) this.#hold.settle({ ...this.#names, ...usage });
  }

  #release(): void {
    if (this.#end()) void this.#hold.release();
  }

  #end(): boolean {
    const first = !this.#ended;
    this.#ended = true;
    this.#signal?.removeEventListener("abort", this.#aborted);
    return first;
  }
}

const requestIDHeaders = ["x-request-id", "request-id", "x-amzn-requestid"];

function fits(name: string | undefined, most: number): name is string {
  // biome-ignore lint: control characters are what is looked for
  return name !== undefined && name !== "" && name.length <= most && !/[\u0000-\u001f\u007f]/.test(name);
}

/** A token for each 4 bytes. */
export const textTokens = (bytes: number): number => Math.ceil(bytes / 4);

const mediaBytesPerToken = 64;
const linkTokens = 1_600; // a picture by its address

/** About how many tokens a request has: a token for each 4 bytes of its JSON, and for each 64 bytes of files in it. */
export function sizeOf(request: unknown): number {
  let media = 0;
  const json = JSON.stringify(request, function (this: Record<string, unknown>, name, value: unknown) {
    const raw = this[name]; // before toJSON
    if (raw instanceof Uint8Array) media += raw.length / mediaBytesPerToken;
    else if (raw instanceof URL) media += linkTokens;
    else if (name === "data" && typeof raw === "string") media += /^https?:/.test(raw) ? linkTokens : (raw.length * 3) / 4 / mediaBytesPerToken;
    else return value;
    return undefined;
  });
  return textTokens(new TextEncoder().encode(json ?? "").length) + Math.ceil(media);
}
