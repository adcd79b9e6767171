/** Undoing: what was stored before is stored again, as a new change. */
import {DEFAULT} from './api.js';
import {definition} from './limit-words.js';

/**
 * @typedef {import('./api.js').Settings & {limits?: import('./api.js').Limit[], default?: boolean}} Value what the log has of a budget
 * @typedef {import('./api.js').Settings & {limits: import('./api.js').Limit[]}} Whole
 */

/** A default budget that binds nobody: nothing else is like none. @type {Whole} */
const NOTHING = {enabled: false, soft_cap_tokens: null, hard_cap_tokens: null, period: 'month', limits: []};

/**
 * What to store so that a budget is what it was; null: none of the port's own. Extra tokens that
 * have ended do not come back.
 * @param {string} port @param {Value | null} was @param {number} now @returns {Whole | null}
 */
export function wholeOf(port, was, now) {
  if (!was || was.default) return port === DEFAULT ? NOTHING : null;
  const {enabled, soft_cap_tokens, hard_cap_tokens, period, extra_tokens, extra_until} = was;
  const whole = {enabled, soft_cap_tokens, hard_cap_tokens, period, limits: (was.limits ?? []).map(definition), extra_tokens: undefined, extra_until: undefined};
  if (port === DEFAULT || hard_cap_tokens === null) return whole;
  const lasts = extra_tokens && extra_until && Date.parse(extra_until) > now;
  return lasts ? {...whole, extra_tokens, extra_until} : {...whole, extra_tokens: 0};
}

/** What the log would have of a budget as it is now. @param {import('./api.js').Budget} b @returns {Value | null} */
export const asStored = (b) => b.default || b.version === 0 ? null : b;

/**
 * @param {import('./api.js').Api} api @param {string} port @param {Whole | null} whole @param {number} ifVersion
 * @returns {Promise<import('./api.js').Budget>}
 */
export const putBack = (api, port, whole, ifVersion) => whole ? api.saveBudget(port, whole, ifVersion) : api.useDefault(port, ifVersion);
