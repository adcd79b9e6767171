import {h} from './dom.js';
import {tokens} from './format.js';
import {LABELS} from './limit-words.js';

/**
 * The values that are nearest to a limit's cap, of one that counts each by itself.
 * @param {string} name of the limit
 * @param {import('./api.js').Limit & import('./api.js').Counted} l
 * @param {{value: string, used: number, held: number, remaining: number | null}[]} values
 * @param {import('./api.js').Label} per
 */
export function valuesTable(name, l, values, per) {
  const label = LABELS[per], capped = l.hard !== undefined;
  const head = (/** @type {string} */ text) => h('th', {scope: 'col', class: 'n', text});
  const cell = (/** @type {number | null} */ n) => h('td', {class: 'n', text: n === null ? '' : tokens(n)});
  return h('table', {},
    h('caption', {class: 'hidden', text: `Nearest to the cap of ${name}`}),
    h('thead', {}, h('tr', {}, h('th', {scope: 'col', text: label.charAt(0).toUpperCase() + label.slice(1)}), head('Used'), head('Held'), capped ? head('Left') : null)),
    h('tbody', {}, ...values.map((v) => h('tr', {},
      h('th', {scope: 'row', class: v.value ? null : 'nobody', title: v.value || null, text: v.value || `no ${label}`}), cell(v.used), cell(v.held), capped ? cell(v.remaining) : null))));
}
