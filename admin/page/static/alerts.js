import {h} from './dom.js';
import {tokens, utcMoment} from './format.js';
import {unitOf} from './limit-words.js';

/**
 * @typedef {object} Alert one that was sent of a port
 * @property {string} port_id
 * @property {string} limit port: of the port's own caps
 * @property {string} limit_value
 * @property {string} threshold
 * @property {number} reached
 * @property {import('./limit-types.js').Limit['unit']} unit
 * @property {string} at
 */

/** @param {Alert} a */
export const alertItem = (a) => h('li', {}, h('span', {text: sentence(a)}), ' ', h('time', {datetime: a.at, text: utcMoment(new Date(a.at))}));

/** "Hard cap reached: 1,000,000 tokens", "ocr-daily, 80% reached for ada: 1,600 calls". @param {Alert} a */
function sentence(a) {
  const cap = a.threshold === 'soft' || a.threshold === 'hard' ? `${a.threshold} cap` : a.threshold;
  const of = a.limit === 'port' ? cap.charAt(0).toUpperCase() + cap.slice(1) : `${a.limit}, ${cap}`;
  return `${of} reached${a.limit_value ? ` for ${a.limit_value}` : ''}: ${tokens(a.reached)} ${unitOf(a, a.reached)}`;
}
