/** The admin API, and what can go wrong with it. */

/**
 * @typedef {'day' | 'week' | 'month'} Period
 * @typedef {'feature' | 'model' | 'user' | 'run'} Dimension
 * @typedef {'hour' | 'day' | 'week'} Step
 *
 * @typedef {object} Settings what a PUT stores
 * @property {boolean} enabled
 * @property {number | null} soft_cap_tokens
 * @property {number | null} hard_cap_tokens
 * @property {Period} period
 * @property {number} [extra_tokens] on top of the hard cap
 * @property {string} [extra_until]
 *
 * @typedef {import('./limit-types.js').Label} Label
 * @typedef {import('./limit-types.js').Limit} Limit
 * @typedef {import('./limit-types.js').Counted} Counted
 * @typedef {import('./limit-types.js').LimitSimulation} LimitSimulation
 * @typedef {import('./limit-types.js').LimitUsage} LimitUsage
 *
 * @typedef {object} Stored
 * @property {boolean} [default] the port has no budget of its own: this is the default budget
 * @property {number} version of the port's own; 0: nothing stored yet
 * @property {string | null} updated_at
 * @property {string} updated_by
 * @property {boolean} may_change whether the caller may do more than look
 *
 * @typedef {object} Spend
 * @property {string} port_id
 * @property {number} used_tokens
 * @property {number} held_tokens
 * @property {number | null} remaining_tokens
 * @property {number | null} projected_tokens
 * @property {boolean} soft_cap_reached
 * @property {boolean} hard_cap_reached
 * @property {string} period_start
 * @property {string} resets_at
 * @property {string} as_of
 *
 * @typedef {Settings & Stored & Spend & {limits: (Limit & Counted)[]}} Budget
 *
 * @typedef {object} Share
 * @property {string} key
 * @property {number} requests
 * @property {number} input_tokens
 * @property {number} output_tokens
 * @property {number} total_tokens
 *
 * @typedef {object} Usage
 * @property {string} period_start
 * @property {string} period_end
 * @property {number} used_tokens
 * @property {number} requests
 * @property {Share[]} by
 * @property {string} [next] there are more
 *
 * @typedef {object} Simulation
 * @property {string} from
 * @property {string} to
 * @property {number} calls
 * @property {number} refused_calls
 * @property {number} refused_tokens
 * @property {string | null} first_refused_at
 * @property {number} warned_calls
 * @property {string | null} first_warned_at
 *
 * @typedef {object} Port
 * @property {string} port_id
 * @property {string} name
 * @property {string} created_at
 * @property {Settings & Stored} budget
 * @property {number} used_tokens
 * @property {string} period_start
 * @property {string} resets_at
 * @property {State} state
 * @property {number | null} share of the hard cap of which most is used; null: there is none
 * @property {string} tightest the name of that limit
 * @property {number[]} days tokens of the last 14, today's last
 * @property {string | null} last_call_on a day
 *
 * @typedef {'none' | 'fine' | 'soft' | 'hard' | 'disabled'} State
 *
 * @typedef {import('./change-types.js').BudgetChange} BudgetChange
 * @typedef {import('./change-types.js').NameChange} NameChange
 * @typedef {BudgetChange | NameChange} Change
 *
 * @typedef {object} Session
 * @property {string} name
 * @property {string[]} permissions
 * @property {string[] | null} ports
 * @property {string | null} expires_at
 *
 * @typedef {{field: string, value?: unknown, rule: string}} FieldProblem
 */

/** What stands for a port where the default budget is meant. */
export const DEFAULT = '*';

/** The server answered no: an RFC 9457 problem document. */
export class Problem extends Error {
  /** @param {number} status @param {{title?: string, detail?: string, errors?: FieldProblem[]}} body */
  constructor(status, body) {
    super(body.detail || body.title || `The server answered with status ${status}`);
    this.name = 'Problem';
    this.status = status;
    this.title = body.title || `Status ${status}`;
    this.errors = body.errors ?? [];
  }
}

/** No answer came. Whether the server did what it was asked is not known. */
export class Unreachable extends Error {
  /** @param {unknown} cause */
  constructor(cause) {
    super('The server cannot be reached', {cause});
    this.name = 'Unreachable';
  }
}

const TIMEOUT_MS = 15_000;
const TRY_TIMEOUT_MS = 65_000; // the server may play millions of calls, or look at all ports for the first time
const COUNT_TIMEOUT_MS = 330_000; // for a new limit the server may read the whole ledger

export class Api {
  /** @param {string} base such as /api/v1 */
  constructor(base) {
    this.base = base.replace(/\/$/, '');
    /** How far the server's clock is ahead of ours, in milliseconds. */
    this.clockAhead = 0;
  }

  /** The server's time. */
  now() {
    return Date.now() + this.clockAhead;
  }

  /**
   * @param {string} path
   * @param {RequestInit} [init]
   * @param {number} [patience] in milliseconds
   * @returns {Promise<any>}
   */
  async ask(path, init = {}, patience = TIMEOUT_MS) {
    const timeout = AbortSignal.timeout(patience);
    const signal = init.signal ? AbortSignal.any([init.signal, timeout]) : timeout;
    let response, text;
    try {
      response = await fetch(this.base + path, {...init, signal, headers: {Accept: 'application/json', ...init.headers}});
      text = await response.text();
    } catch (cause) {
      if (init.signal?.aborted) throw cause;
      throw new Unreachable(cause);
    }
    const date = Date.parse(response.headers.get('Date') ?? '');
    if (!Number.isNaN(date)) this.clockAhead = Math.abs(date - Date.now()) > 2000 ? date - Date.now() : 0;
    if (!response.ok) throw new Problem(response.status, parse(text) ?? {});
    const body = text === '' ? {} : parse(text);
    if (body === null) throw new Problem(response.status, {title: 'The answer is not what the API promises', detail: `${path} did not answer with JSON`});
    return body;
  }

  /** @param {string} port */
  at(port) {
    return `/ports/${encodeURIComponent(port)}`;
  }

  /** @param {string} port */
  budgetAt(port) {
    return port === DEFAULT ? '/default-budget' : `${this.at(port)}/ai-budget`;
  }

  /** @param {string} port @param {AbortSignal} [signal] @returns {Promise<Budget>} */
  budget(port, signal) {
    return this.ask(this.budgetAt(port), {signal});
  }

  /** Gives a port back to the default budget. @param {string} port @param {number} ifVersion @returns {Promise<Budget>} */
  useDefault(port, ifVersion) {
    return this.ask(this.budgetAt(port), {method: 'DELETE', headers: {'If-Match': `"${ifVersion}"`}}, COUNT_TIMEOUT_MS);
  }

  /**
   * Stores the settings if the stored version still is ifVersion; otherwise it is a
   * {@link Problem} with status 412. Without limits those that are stored stay.
   * @param {string} port @param {Settings & {limits?: Limit[]}} settings @param {number} ifVersion
   * @returns {Promise<Budget>}
   */
  saveBudget(port, settings, ifVersion) {
    return this.ask(this.budgetAt(port), {
      method: 'PUT',
      headers: {'Content-Type': 'application/json', 'If-Match': `"${ifVersion}"`},
      body: JSON.stringify(settings),
    }, settings.limits ? COUNT_TIMEOUT_MS : TIMEOUT_MS);
  }

  /** @param {string} port @param {Dimension} by @param {import('./range.js').Range} range @param {AbortSignal} [signal] @returns {Promise<Usage>} */
  usage(port, by, range, signal) {
    return this.ask(`${this.at(port)}/ai-usage?${new URLSearchParams({by, ...range})}`, {signal});
  }

  /** @param {string} port @param {Dimension} by @param {import('./range.js').Range} range */
  csv(port, by, range) {
    return `${this.base}${this.at(port)}/ai-usage.csv?${new URLSearchParams({by, ...range})}`;
  }

  /** @param {string} port @param {Dimension} by @param {Step} step @param {import('./range.js').Range} range @param {AbortSignal} [signal] @returns {Promise<import('./usage.js').Series>} */
  series(port, by, step, range, signal) {
    return this.ask(`${this.at(port)}/ai-usage/series?${new URLSearchParams({by, step, ...range})}`, {signal}, TRY_TIMEOUT_MS);
  }

  /** @param {string} port @param {number} limit @param {AbortSignal} [signal] @returns {Promise<import('./attention.js').Quarantine>} */
  quarantine(port, limit, signal) {
    return this.ask(`${this.at(port)}/quarantine?limit=${limit}`, {signal});
  }

  /** @param {string} port @param {AbortSignal} [signal] @returns {Promise<import('./attention.js').Unsettled>} */
  unsettled(port, signal) {
    return this.ask(`${this.at(port)}/unsettled-holds`, {signal});
  }

  /** @param {string} port @param {Settings} settings @param {AbortSignal} signal @returns {Promise<Simulation>} */
  simulate(port, settings, signal) {
    const query = new URLSearchParams({period: settings.period});
    if (settings.hard_cap_tokens !== null) query.set('hard', String(settings.hard_cap_tokens));
    if (settings.soft_cap_tokens !== null) query.set('soft', String(settings.soft_cap_tokens));
    return this.ask(`${this.at(port)}/ai-budget/simulate?${query}`, {signal});
  }

  /** Stores nothing. @param {string} port @param {Limit} limit @param {AbortSignal} [signal] @returns {Promise<LimitSimulation>} */
  simulateLimit(port, limit, signal) {
    const init = {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(limit), signal};
    return this.ask(`${this.at(port)}/ai-budget/simulate-limit?of=previous`, init, TRY_TIMEOUT_MS);
  }

  /** Stores nothing. @param {string} port @param {Limit} limit @returns {Promise<import('./limit-types.js').LimitNow>} */
  limitNow(port, limit) {
    const init = {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(limit)};
    return this.ask(`${this.at(port)}/ai-budget/limit-now`, init, TRY_TIMEOUT_MS);
  }

  /** @param {string} port @param {string} name @returns {Promise<LimitUsage>} */
  limitUsage(port, name) {
    return this.ask(`${this.at(port)}/ai-usage/limit?${new URLSearchParams({limit_name: name})}`);
  }

  /** @param {Settings} settings of a default budget, which is not stored @returns {Promise<import('./effect.js').DefaultEffect>} */
  defaultEffect({enabled, hard_cap_tokens: hard, period}) {
    const query = new URLSearchParams({period});
    if (enabled && hard !== null) query.set('hard', String(hard));
    return this.ask(`/default-budget/effect?${query}`, {}, TRY_TIMEOUT_MS);
  }

  /** @param {string} port @param {number} limit @param {AbortSignal} [signal] @returns {Promise<{alerts: import('./alerts.js').Alert[]}>} */
  alerts(port, limit, signal) {
    return this.ask(`${this.at(port)}/alerts?limit=${limit}`, {signal});
  }

  /**
   * @param {string} q @param {string} after @param {number} limit @param {AbortSignal} [signal] @param {string} [sort] @param {string} [state]
   * @returns {Promise<{ports: Port[], next: string, total: number | null}>}
   */
  ports(q, after, limit, signal, sort = '', state = '') {
    return this.ask(`/ports?${new URLSearchParams({q, after, limit: String(limit), sort, state})}`, {signal}, sort || state ? TRY_TIMEOUT_MS : TIMEOUT_MS);
  }

  /** @param {AbortSignal} [signal] @returns {Promise<import('./overview.js').Overview>} */
  overview(signal) {
    return this.ask('/overview', {signal}, TRY_TIMEOUT_MS);
  }

  /** @param {string} port @param {number | string} before @param {number} limit @param {AbortSignal} [signal] @returns {Promise<{changes: Change[], next: number | string}>} */
  audit(port, before, limit, signal) {
    const query = new URLSearchParams({limit: String(limit)});
    if (before) query.set('before', String(before));
    return this.ask(`${port === DEFAULT ? '/default-budget' : this.at(port)}/audit?${query}`, {signal});
  }

  /** @param {string} port @param {string} name empty: none @returns {Promise<void>} */
  namePort(port, name) {
    return this.ask(`${this.at(port)}/name`, {method: 'PUT', headers: {'Content-Type': 'application/json'}, body: JSON.stringify({name})});
  }

  /** @param {AbortSignal} [signal] @returns {Promise<Session>} */
  session(signal) {
    return this.ask('/session', {signal});
  }
}

/** @param {string} text */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
