import {h} from './dom.js';
import {tokens, utcMoment} from './format.js';
import {inShort} from './limit-words.js';

/**
 * @typedef {import('./api.js').Settings & {limits?: import('./api.js').Limit[]}} Settings
 * @typedef {{name: string, before: string, after: string}} Difference
 */

const NAMES = /** @type {const} */ ({enabled: 'Caps', soft_cap_tokens: 'Soft cap', hard_cap_tokens: 'Hard cap', extra_tokens: 'Extra tokens', extra_until: 'Extra tokens until', period: 'Period'});

/**
 * What differs between two budgets, in words.
 * @param {Settings | null} before @param {Settings | null} after
 * @returns {Difference[]}
 */
export function differences(before, after) {
  const keys = /** @type {(keyof typeof NAMES)[]} */ (Object.keys(NAMES));
  const of = (/** @type {Settings | null} */ s, /** @type {keyof typeof NAMES} */ k) => k === 'extra_tokens' ? s?.[k] || undefined : s?.[k]; // none may be 0, or not there
  return keys.filter((k) => of(before, k) !== of(after, k))
    .map((k) => ({name: NAMES[k], before: word(k, before), after: word(k, after)}));
}

/**
 * What differs between the limits of two budgets.
 * @param {Settings | null} before @param {Settings | null} after
 */
export function limitDifferences(before, after) {
  const [was, is] = [before, after].map((s) => new Map((s?.limits ?? []).map((l) => [l.name, inShort(l)])));
  return [...new Set([...was.keys(), ...is.keys()])].filter((name) => was.get(name) !== is.get(name))
    .map((name) => ({name: `Limit ${name}`, before: was.get(name) ?? 'none', after: is.get(name) ?? 'none'}));
}

/** Differences side by side. @param {Difference[]} rows @param {string} was @param {string} is */
export const changesTable = (rows, was, is) => h('table', {},
  h('thead', {}, h('tr', {}, h('td'), h('th', {scope: 'col', text: was}), h('th', {scope: 'col', text: is}))),
  h('tbody', {}, ...rows.map((r) => h('tr', {}, h('th', {scope: 'row', text: r.name}), h('td', {text: r.before}), h('td', {text: r.after})))));

/** @param {keyof typeof NAMES} key @param {Settings | null} s */
function word(key, s) {
  if (!s) return 'none';
  if (key === 'enabled') return s.enabled ? 'enforced' : 'not enforced';
  if (key === 'period') return s.period;
  if (key === 'extra_until') return s.extra_until ? utcMoment(new Date(s.extra_until)) : 'none';
  const cap = s[key];
  return cap === null || cap === undefined || key === 'extra_tokens' && cap === 0 ? 'none' : tokens(cap);
}

/** "Ada (oidc:auth0|5f1)" as Ada. @param {string | undefined} actor */
export function personOf(actor) {
  if (!actor) return 'somebody';
  return /^(.+) \([^()]*:[^()]*\)$/.exec(actor)?.[1] ?? actor;
}
