// What the client itself must keep of the contract: what JSON or an address would turn into something else.
import type { FieldError } from "./errors.js";

export const maxTokens = 2 ** 40;
export const maxEventBytes = 16 << 10;

/**
 * The first number that is none from 0 to 2^40, undefined if there is none. JSON has no NaN: it would become null, which
 * means 0, and tokens would be lost.
 */
export function wrongNumber(fields: object, prefix = ""): FieldError | undefined {
  for (const [name, value] of Object.entries(fields)) {
    const field = prefix + name;
    if (typeof value === "bigint" || (typeof value === "number" && !(Number.isInteger(value) && value >= 0 && value <= maxTokens))) {
      return { field, value: String(value), rule: `must be a whole number from 0 to ${maxTokens}` };
    }
    if (prefix === "" && typeof value === "object" && value !== null) {
      const wrong = wrongNumber(value, `${field}.`);
      if (wrong !== undefined) return wrong;
    }
  }
  return undefined;
}

/** A port is a part of addresses and subjects. */
export function wrongPort(port: unknown): FieldError | undefined {
  if (typeof port === "string" && /^[A-Za-z0-9_-]{1,64}$/.test(port)) return undefined;
  return { field: "port_id", value: JSON.stringify(port)?.slice(0, 80) ?? "", rule: "must be 1 to 64 of A-Z a-z 0-9 _ -: name it in the options or in the call" };
}

/** A new id of that time, from which Tidegate takes the period. */
export function uuidv7(ms: number): string {
  const random = Array.from(crypto.getRandomValues(new Uint8Array(10)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const time = ms.toString(16).padStart(12, "0");
  const variant = "89ab"[Number.parseInt(random.charAt(3), 16) & 3];
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(0, 3)}-${variant}${random.slice(4, 7)}-${random.slice(7, 19)}`;
}

export const describeField = (e: FieldError): string => `${e.field} = ${e.value}: ${e.rule}`;
