import type { FieldError } from "./errors.js";

/** An event that waits, as it is sent. */
export interface Item {
  readonly id: string;
  readonly port: string;
  readonly text: string;
  readonly bytes: number;
}

/** What became of an event: undefined if it is stored, else why it never will be. */
export type Outcome = undefined | { reason: string; errors: FieldError[] };

/** The way to Tidegate: HTTP, or NATS. */
export interface Transport {
  /** Asks once. It throws RequestError, or UnavailableError, which may be asked again. */
  ask(what: "check" | "reserve", port: string, question: object, signal: AbortSignal): Promise<object>;
  /** Throws what `ask` throws. */
  release(port: string, reservation: string, signal: AbortSignal): Promise<void>;
  /** Stores events, and says of each what became of it. If it throws, nobody knows: the same are sent again. */
  publish(items: readonly Item[], signal: AbortSignal): Promise<Outcome[]>;
  close(): Promise<void>;
}
