/** Limits in words. */
import {tokens} from './format.js';

/** @typedef {import('./api.js').Limit} Limit */
/** @typedef {import('./api.js').Label} Label */

/** The dimensions, as people call them, in the order of the form. */
export const LABELS = /** @type {Record<Label, string>} */ ({feature: 'feature', provider: 'provider', model: 'model', user_id: 'user', run_id: 'run'});

export const NOW = {hour: 'this hour', day: 'today', week: 'this week', month: 'this month', total: 'so far'};
const EACH = {hour: 'an hour', day: 'a day', week: 'a week', month: 'a month', total: 'in total'};

/** @param {Pick<Limit, 'unit'>} l @param {number} [n] */
export function unitOf(l, n = 2) {
  if (l.unit === 'requests') return n === 1 ? 'call' : 'calls';
  return l.unit === 'weighted' ? 'weighted tokens' : 'tokens';
}

/** "Calls with feature ocr and model gpt-5*, each user by itself". @param {Limit} l */
export function which(l) {
  const parts = labels().filter((d) => l.match?.[d]).map((d) => `${LABELS[d]} ${l.match?.[d]}`);
  const calls = parts.length > 0 ? `Calls with ${named(parts)}` : 'All calls';
  return l.per ? `${calls}, each ${LABELS[l.per]} by itself` : calls;
}

/** "Hard cap 200,000 · soft cap 150,000 tokens a day". @param {Limit} l */
export function caps(l) {
  const parts = [l.hard === undefined ? '' : `hard cap ${tokens(l.hard)}`, l.soft === undefined ? '' : `soft cap ${tokens(l.soft)}`].filter(Boolean);
  const text = `${parts.join(' · ')} ${unitOf(l, l.soft ?? l.hard)} ${EACH[l.window]}`;
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** "Input counts 0.5, output 4", of unit weighted. @param {Limit} l */
export function weights(l) {
  const names = /** @type {const} */ ({input: 'input', cache_read: 'cache reads', cache_write: 'cache writes', output: 'output'});
  const keys = /** @type {(keyof typeof names)[]} */ (Object.keys(names));
  const parts = keys.filter((k) => l.weights?.[k] !== undefined).map((k) => `${names[k]} ${l.weights?.[k]}`);
  return parts.length > 0 ? `A token of ${named(parts)} counts that much, any other 1` : '';
}

/** All of a limit but its name. @param {Limit} l */
export function inShort(l) {
  return [caps(l), which(l), weights(l), alertsAt(l)].filter(Boolean).join('. ');
}

/** "Alerts at 50% and 8,500,000 too". @param {Limit} l */
export const alertsAt = (l) => l.alert_at?.length ? `Alerts at ${named(l.alert_at.map((t) => typeof t === 'number' ? tokens(t) : t))} too` : '';

/** "user ada", or who has none. @param {Label} per @param {string} value */
export const valueName = (per, value) => value === '' ? `calls without a ${LABELS[per]}` : `${LABELS[per]} ${value}`;

export const labels = () => /** @type {Label[]} */ (Object.keys(LABELS));

/** "a, b and c". @param {string[]} parts */
export const named = (parts) => parts.length < 2 ? parts.join('') : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`;

/** What counts against a cap. @param {{used?: number | null, held?: number | null}} count */
export const spent = ({used, held}) => (used ?? 0) + (held ?? 0);

/**
 * What is used and held of a limit; where it counts each value by itself, of the one that is nearest to its cap.
 * @param {Partial<import('./api.js').Counted>} l @returns {{used?: number | null, held?: number | null, remaining?: number | null}}
 */
export const tightest = (l) => l.top ? l.top[0] ?? {used: 0} : l;

/** What the server tells of a limit beside its definition, and the log its counter. */
const STATE = ['used', 'held', 'remaining', 'values', 'top', 'window_start', 'resets_at', 'counter'];

/**
 * A limit without what it counts, as it is stored: with all that is part of it, whether this page
 * knows of it or not.
 * @param {import('./api.js').Limit} l @returns {import('./api.js').Limit}
 */
export function definition(l) {
  return /** @type {any} */ (Object.fromEntries(Object.entries(l).filter(([name]) => !STATE.includes(name))));
}
