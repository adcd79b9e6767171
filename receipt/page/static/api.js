/**
 * What the server says.
 *
 * @typedef {object} Session
 * @property {string} name
 * @property {string[] | null} ports null: every port
 * @property {string} [provider]
 * @property {number} max_bytes
 *
 * @typedef {{description: string, quantity: number | null, amount: number | null}} Item
 *
 * @typedef {object} Receipt
 * @property {string | null} merchant
 * @property {string | null} date
 * @property {number | null} total
 * @property {string | null} currency
 * @property {Item[]} items
 *
 * @typedef {object} Usage
 * @property {string} provider
 * @property {string} model
 * @property {number} total_tokens
 * @property {string} measured_by
 * @property {string} [request_id]
 *
 * @typedef {object} Budget
 * @property {number} used_tokens
 * @property {number | null} hard_cap_tokens
 * @property {string} resets_at
 *
 * @typedef {object} Scan
 * @property {'ai' | 'manual'} source
 * @property {string} [reason]
 * @property {string} [detail]
 * @property {Receipt | null} receipt
 * @property {Usage | null} usage
 * @property {{message: string} | null} soft_cap_warning
 * @property {Budget | null} budget
 */

/** A refusal, as the server words it. */
export class Problem extends Error {
  /** @param {number} status @param {string} title @param {string} detail */
  constructor(status, title, detail) {
    super(detail);
    this.status = status;
    this.title = title;
  }
}

/** @param {string} path @param {RequestInit} [init] */
async function ask(path, init = {}) {
  const response = await fetch(path, {...init, headers: {Accept: 'application/json'}});
  const text = await response.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    body = null;
  }
  if (!response.ok || body === null) {
    throw new Problem(response.status, body?.title ?? 'The server answered something unexpected', body?.detail ?? `status ${response.status}`);
  }
  return body;
}

/** @returns {Promise<Session>} */
export const session = () => ask('/api/v1/session');

/** @param {string} port @param {Blob} photo @param {AbortSignal} signal @returns {Promise<Scan>} */
export function scan(port, photo, signal) {
  const form = new FormData();
  form.set('image', photo);
  return ask(`/api/v1/ports/${encodeURIComponent(port)}/scan-receipt`, {method: 'POST', body: form, signal});
}
