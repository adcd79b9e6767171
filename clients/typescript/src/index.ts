import { type Options, Tidegate } from "./client.js";
import { HTTPTransport } from "./http.js";

/** How to reach the role `edge`. */
export interface HTTPOptions extends Options {
  /** Where Tidegate answers, such as `http://127.0.0.1:8080`. */
  url: string;
  /** An API token, `tg_…`, with the permissions `usage.report` and `budget.reserve`. */
  token: string;
}

/** Makes a client that speaks HTTP. It does no I/O. */
export function open(options: HTTPOptions): Tidegate {
  const { url, token } = options;
  if (!/^https?:\/\/[^?#]+$/.test(url)) throw new TypeError(`tidegate: url must be Tidegate's address, such as http://127.0.0.1:8080: got ${url}`);
  if (typeof token !== "string" || !/^\S+$/.test(token)) throw new TypeError("tidegate: token must be an API token: `tidegate token create` makes one");
  return new Tidegate(new HTTPTransport(url, token), options);
}

export type { AskOptions, Options, Tidegate } from "./client.js";
export * from "./errors.js";
export type { OnError } from "./reporter.js";
export type * from "./types.js";
