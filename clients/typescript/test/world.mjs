// The system that typescript_test.go runs, as these tests see it.
import { open } from "tidegate";

export const { EDGE_URL: url, NATS_URL: natsURL, CONTROL_URL: control, TOKEN: token, TOKEN_OF_A: tokenOfA } = process.env;

let ports = 0;

/** A port that no other test has. */
export const newPort = (name) => `${name}-${process.pid}-${ports++}`;

/** A client, and what its onError was told. */
export function client(options) {
  const told = [];
  const tidegate = open({ url, token, whenUnavailable: "fail-closed", onError: (error, lost) => told.push({ error, lost }), ...options });
  return { tidegate, told };
}

/** The edge with a fault, for as many of the first requests: what there is of faults, world_test.go knows. */
export const faulty = (fault, requests = 1) => `${control}/faulty/${newPort(fault)}/${fault}/${requests}`;

/** How many requests came to an address of faulty. */
export const requestsTo = (address) => ask(`/requests/${address.split("/").at(-3)}`);

async function ask(path, body) {
  const response = await fetch(control + path, { method: "POST", body: JSON.stringify(body ?? {}) });
  if (response.status !== 200) throw new Error(`${path}: ${await response.text()}`);
  return response.json();
}

export const setBudget = (port, hard, limits = []) => ask(`/budget/${port}`, { hard_cap_tokens: hard, limits });

/** Waits until so many calls of the port are booked, and as many tokens held; and says what is there. Holds of a reserve that was asked again count only if `again`. */
export const booked = (port, rows, held = 0, again = false) => ask(`/booked/${port}`, { rows, held, again });

/** The usual call. */
export const call = { feature: "ocr", provider: "openai", model: "gpt-5-mini" };
