import {h, need} from './dom.js';
import {utcMonthYear} from './format.js';
import {isoDay} from './period.js';

/**
 * @typedef {object} Range the days that are looked at
 * @property {string} [period] current, previous, or a month like 2026-11
 * @property {string} [from] a day
 * @property {string} [to] the day after the last one
 */

const DAY = 86_400_000;
const MONTHS_BACK = 12;
const MOST_DAYS = 366;
const NAMES = {day: ['Today', 'Yesterday'], week: ['This week', 'Last week'], month: ['This month', 'Last month']};
const CUSTOM = 'custom';
const DAYS = /^(\d{4}-\d\d-\d\d)\.\.(\d{4}-\d\d-\d\d)$/;
const KNOWN = /^(current|previous|\d{4}-(0[1-9]|1[0-2]))$/;

/** Chooses the days: this period, the one before, a month, or any. */
export class RangePicker {
  #offered = '';
  #chosen = 'current';

  /** @param {HTMLElement} root @param {() => void} changed */
  constructor(root, changed) {
    this.select = /** @type {HTMLSelectElement} */ (need(root, '[name=range]'));
    this.custom = need(root, '.custom');
    this.first = /** @type {HTMLInputElement} */ (need(root, '[name=first]'));
    this.last = /** @type {HTMLInputElement} */ (need(root, '[name=last]'));
    this.error = need(root, '.range-error');
    this.select.addEventListener('change', () => {
      this.#chosen = this.select.value;
      this.custom.hidden = this.#chosen !== CUSTOM;
      changed();
    });
    for (const input of [this.first, this.last]) input.addEventListener('change', changed);
  }

  /** What is chosen, as an address has it: current, previous, 2026-11 or 2026-11-10..2026-11-23, the last day included. */
  get text() {
    return this.#chosen === CUSTOM ? `${this.first.value}..${this.last.value}` : this.#chosen;
  }

  /** Chooses what an address says; what cannot be read is the current period. @param {string} text */
  set text(text) {
    const days = DAYS.exec(text);
    if (days) [this.first.value, this.last.value] = [days[1], days[2]];
    this.#chosen = days ? CUSTOM : KNOWN.test(text) ? text : 'current';
    this.#offered = '';
  }

  /** Offers what there is, and keeps what is chosen. @param {import('./api.js').Period} period @param {number} now */
  offer(period, now) {
    const key = `${period} ${isoDay(now)}`;
    if (key === this.#offered) return;
    this.#offered = key;
    const today = new Date(now);
    const [current, previous] = NAMES[period];
    const months = [];
    for (let back = period === 'month' ? 2 : 0; back <= MONTHS_BACK; back++) months.push(isoDay(Date.UTC(today.getUTCFullYear(), today.getUTCMonth() - back, 1)).slice(0, 7));
    if (/^\d/.test(this.#chosen) && !months.includes(this.#chosen)) months.push(this.#chosen); // an address may ask for any
    this.select.replaceChildren(h('option', {value: 'current', text: current}), h('option', {value: 'previous', text: previous}),
      ...months.map((m) => h('option', {value: m, text: utcMonthYear(new Date(m))})), h('option', {value: CUSTOM, text: 'Other days…'}));
    this.select.value = this.#chosen;
    this.first.max = this.last.max = isoDay(now);
    if (!this.first.value) [this.first.value, this.last.value] = [isoDay(now - 13 * DAY), isoDay(now)];
    this.custom.hidden = this.#chosen !== CUSTOM;
  }

  /** What is chosen; null: that is no range. @returns {Range | null} */
  get value() {
    this.error.textContent = '';
    if (this.#chosen !== CUSTOM) return {period: this.#chosen};
    const [first, last] = [Date.parse(this.first.value), Date.parse(this.last.value)];
    const wrong = Number.isNaN(first) || Number.isNaN(last) ? 'Give both days.' : last < first ? 'The last day is before the first.' : (last - first) / DAY >= MOST_DAYS ? `At most ${MOST_DAYS} days.` : '';
    this.error.textContent = wrong;
    return wrong ? null : {from: isoDay(first), to: isoDay(last + DAY)};
  }
}
