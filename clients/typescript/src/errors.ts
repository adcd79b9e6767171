import type { Question, Refused, Unanswered } from "./types.js";

/** Every error of this package is one. */
export class TidegateError extends Error {
  override name = "TidegateError";
}

/** A field that breaks a rule. */
export interface FieldError {
  field: string;
  /** As received, shortened. */
  value: string;
  rule: string;
}

/** The question breaks a rule: a bug to mend, and the only error that check and reserve throw. */
export class RequestError extends TidegateError {
  override name = "RequestError";
  /** The HTTP status, or NATS' code of the same meaning: 400, 409, 413, 422. */
  readonly status: number;
  readonly errors: FieldError[];

  constructor(status: number, message: string, errors: FieldError[] = []) {
    super(message);
    this.status = status;
    this.errors = errors;
  }
}

/** No answer was to be had: no network, no gate, no room, or a token that is not good for it. */
export class UnavailableError extends TidegateError {
  override name = "UnavailableError";
  /** Of the answer that was no answer, if there was one: 401, 403, 404, 429, 503, … */
  readonly status: number | undefined;
  /** How long to wait before asking again, in milliseconds; undefined: nobody said. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, options: { status?: number; retryAfterMs?: number | undefined; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.status = options.status;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** Why an event will not be booked. */
export type NotReportedReason =
  | "queue_full" // more waited than `bufferBytes`
  | "closed" // it came after close()
  | "gave_up" // it could not be sent before the process ended, or before close() gave up
  | "too_large"
  | "invalid_field"
  | "port_not_allowed"
  | (string & {}); // whatever else the edge says

/** An event will not be booked. It goes to `onError`, with the event. */
export class NotReportedError extends TidegateError {
  override name = "NotReportedError";
  readonly reason: NotReportedReason;
  /** Which field is at fault, if one is. */
  readonly errors: FieldError[];

  constructor(reason: NotReportedReason, message: string, errors: FieldError[] = []) {
    super(message);
    this.reason = reason;
    this.errors = errors;
  }
}

/** A call was not made because it was not allowed. Middleware throws it; check and reserve answer instead. */
export class RefusedError extends TidegateError {
  override name = "RefusedError";
  readonly verdict: Refused | Unanswered;
  readonly question: Question;

  constructor(verdict: Refused | Unanswered, question: Question) {
    super(describe(verdict, question), { cause: verdict.error });
    this.verdict = verdict;
    this.question = question;
  }
}

function describe(v: Refused | Unanswered, q: Question): string {
  const port = q.port_id === undefined ? "" : ` of port ${q.port_id}`;
  const call = `a call${port} of about ${estimate(q)} tokens is refused (${v.reason})`;
  if (v.reason === "gate_unavailable") return `${call}: ${v.error.message}`;
  const whose = v.limit_value === undefined ? v.limit : `${v.limit} of ${v.limit_value}`;
  const unit = v.unit === undefined || v.unit === "tokens" ? "" : ` ${v.unit}`;
  const until = v.resets_at === null ? "it never resets" : `it resets at ${v.resets_at}`;
  return `${call}: limit ${whose}, ${v.used_tokens} used and ${v.held_tokens} held of ${v.hard_cap_tokens}${unit}; ${until}`;
}

function estimate(q: Question): number {
  return q.estimated_tokens ?? (q.estimated_input_tokens ?? 0) + (q.estimated_output_tokens ?? 0);
}
