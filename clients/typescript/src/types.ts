// The words of the wire, as docs/wire.md has them: field names are those of the JSON.
import type { UnavailableError } from "./errors.js";

/** What a call is for. Limits look at it, so a question and its report say the same. */
export interface Call {
  /** The tenant that pays. Left out: the `port` of the options. */
  port_id?: string | undefined;
  /** Of the application, such as `ocr` or `summary`; at most 64 characters. */
  feature?: string | undefined;
  /** `openai`, `anthropic`, …; at most 64 characters. */
  provider?: string | undefined;
  /** At most 128 characters. */
  model?: string | undefined;
  /** At most 128 characters; left out: the system makes the call. */
  user_id?: string | undefined;
  /** The agent run, conversation or job; at most 128 characters. */
  run_id?: string | undefined;
}

/** What a finished call cost. */
export interface Usage extends Call {
  feature: string;
  provider: string;
  model: string;
  /** A UUIDv7, or any text beside `occurred_at`. Left out: the client makes one. An event is booked once for each id. */
  id?: string | undefined;
  /** When the call ended, RFC 3339; it decides the period. Left out: now. */
  occurred_at?: string | undefined;
  /** A whole number up to 2^40, cached tokens included. Left out: 0. */
  input_tokens?: number | undefined;
  /** A whole number up to 2^40, reasoning included. Left out: 0. */
  output_tokens?: number | undefined;
  /** The sum of both, or left out. */
  total_tokens?: number | undefined;
  /** Parts of the tokens above. */
  details?: Details | undefined;
  /** Where the figures come from. Left out: `provider`. */
  measured_by?: "provider" | "partial" | "estimate" | undefined;
  /** How the call ended; its tokens count either way. Left out: `ok`. */
  status?: "ok" | "partial" | "error" | undefined;
  /** The provider's, to find the call in its logs; at most 256 characters. */
  request_id?: string | undefined;
  response_id?: string | undefined;
  /** The hold that this call settles; `settle` of a hold fills it in. */
  reservation_id?: string | undefined;
}

export interface Details {
  cache_read_input_tokens?: number | undefined;
  cache_write_input_tokens?: number | undefined;
  reasoning_output_tokens?: number | undefined;
}

/** May the port spend so much now? */
export interface Question extends Call {
  /** Input and output. Left out: the sum of the two below, or 0. */
  estimated_tokens?: number | undefined;
  estimated_input_tokens?: number | undefined;
  estimated_output_tokens?: number | undefined;
  /** `true` asks for `limits` in the answer. */
  explain?: boolean | undefined;
}

export interface ReserveQuestion extends Question {
  /** How long the hold lives. Default 300, at most 3,600. */
  ttl_seconds?: number | undefined;
  /** The same question with the same key finds the same hold. */
  idempotency_key?: string | undefined;
  /** `true`: what is left will do, if the estimate does not fit. */
  accept_less?: boolean | undefined;
  /** Who holds it, for lists of what was never settled. Over HTTP left out: the token's name. */
  service?: string | undefined;
}

export type Period = "hour" | "day" | "week" | "month" | "total";

/** What a limit says, in its `unit` (tokens, if there is none). */
export interface LimitFigures {
  /** `port` for the port's own caps. */
  limit: string;
  limit_value?: string;
  unit?: "tokens" | "requests" | "weighted";
  /** A soft cap is reached. */
  soft_cap_warning: boolean;
  period: Period;
  period_start: string;
  /** null: never. */
  resets_at: string | null;
  used_tokens: number;
  held_tokens: number;
  soft_cap_tokens: number | null;
  hard_cap_tokens: number | null;
  remaining_tokens: number | null;
}

/** The figures of an answer are those of one limit. */
export interface Figures extends LimitFigures {
  enabled: boolean;
  /** What was booked by then is counted. */
  as_of: string;
  backlog_messages?: number;
  backlog_oldest_at?: string;
  limits?: LimitVerdict[];
  /** These three only if tokens are held. */
  reservation_id?: string;
  expires_at?: string;
  granted_tokens?: number;
}

export interface LimitVerdict extends LimitFigures {
  allowed: boolean;
  reason: string;
}

/** A gate allows the call. */
export interface Allowed extends Figures {
  allowed: true;
  reason: "";
  error?: undefined;
}

/** A gate refuses the call: an answer like any other. */
export interface Refused extends Figures {
  allowed: false;
  reason: "hard_cap_reached" | "estimate_exceeds_hard_cap" | "gate_stale";
  error?: undefined;
}

/** No gate answered: `allowed` is what `whenUnavailable` says, and there are no figures. */
export type Unanswered = { [field in keyof Figures]?: undefined } & {
  allowed: boolean;
  reason: "gate_unavailable";
  error: UnavailableError;
};

export type Verdict = Allowed | Refused | Unanswered;

/** An answer to a reserve. If it is allowed, `granted_tokens` are held until `expires_at`, or until one of these is called. */
export type Hold = Verdict & {
  /**
   * Reports what the call cost, in the background as `report` does; booking it ends the hold. What the
   * usage leaves out of port, feature, provider, model, user and run is the question's. A second settle is reported
   * too, as a call without a hold.
   */
  settle(usage: Settlement): boolean;
  /** Gives the tokens back: the call did not happen. It never rejects; false: they are held until `expires_at`, which `onError` is told. */
  release(): Promise<boolean>;
};

/** A usage whose names may be left to the question. */
export type Settlement = Omit<Usage, "feature" | "provider" | "model" | "reservation_id"> & Pick<Call, "feature" | "provider" | "model">;
