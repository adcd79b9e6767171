import {since} from './back-test.js';
import {tokens} from './format.js';
import {LABELS} from './limit-words.js';

/**
 * @typedef {import('./api.js').Limit} Limit
 * @typedef {import('./api.js').LimitSimulation} LimitSimulation
 */

/** Whose calls a limit is tried on. */
const SPAN = /** @type {const} */ ({hour: 'day', day: 'day', week: 'week', month: 'month', total: 'month'});
const WHEN = {day: 'yesterday', week: 'last week', month: 'last month'};
const LISTED = 3;

/**
 * What a limit would have done. Its name does not matter, and may not be typed yet.
 * @param {import('./api.js').Api} api @param {string} port
 * @param {Limit | null} limit null: what was typed is no limit
 * @returns {import('./back-test.js').Question}
 */
export function ofLimit(api, port, limit) {
  const tried = limit && {...limit, name: 'tried'};
  const key = JSON.stringify([port, tried]);
  if (!tried) return {key, idle: 'Type a cap as 200k, 1.5M or 1,500,000 to see what it would have done.', ask: async () => ''};
  return {key, ask: async (signal) => sentence(await api.simulateLimit(port, tried, signal), tried)};
}

/** @param {LimitSimulation} s @param {Limit} l */
export function sentence(s, l) {
  const span = SPAN[l.window];
  const when = WHEN[span];
  if (s.calls === 0) return `There were no calls ${when} that this limit matches.`;
  const warned = s.warned_calls === 0 || !s.first_warned_at ? 'warned of nothing' : `warned from ${since(s.first_warned_at, span)} on`;
  if (l.hard === undefined) return `With this soft cap, ${when} would have ${warned}.`;
  const soft = l.soft === undefined ? '' : ` The soft cap would have ${warned}.`;
  const calls = `${tokens(s.calls)} ${s.calls === 1 ? 'call' : 'calls'}`;
  const begins = l.window === 'total' ? ', counted from nothing,' : '';
  if (s.refused_calls === 0 || !s.first_refused_at) return `With this limit, ${when}${begins} none of ${calls} that it matches would have been refused.${soft}`;
  return `With this limit, ${when}${begins} ${tokens(s.refused_calls)} of ${calls} that it matches would have been refused, from ${since(s.first_refused_at, span)} on.${refused(s, l)}${soft}`;
}

/** Of which values. @param {LimitSimulation} s @param {Limit} l */
function refused(s, l) {
  if (!l.per || !s.top || s.refused_values === null || s.values === null) return '';
  const most = s.top.slice(0, LISTED).map((v) => `${v.value || 'no name'} (${tokens(v.refused_calls)})`);
  const more = s.refused_values - most.length;
  const label = s.values === 1 ? LABELS[l.per] : `${LABELS[l.per]}s`;
  return ` Of ${tokens(s.refused_values)} of ${tokens(s.values)} ${label}: ${most.join(', ')}${more > 0 ? ` and ${tokens(more)} more` : ''}.`;
}
