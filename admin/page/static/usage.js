import {h, need, say} from './dom.js';
import {firstStep, publishCommand} from './empty.js';
import {THIS} from './facts.js';
import {utcLongDay} from './format.js';
import {RangePicker} from './range.js';
import {Shares, keyName} from './shares.js';
import {StackChart} from './stack.js';

/**
 * @typedef {import('./api.js').Budget} Budget
 * @typedef {import('./api.js').Step} Step
 *
 * @typedef {object} View what somebody looks at, as attributes and addresses have it
 * @property {string} range see RangePicker
 * @property {string} by feature, model, user or run
 * @property {string} step hour, day or week; empty: what fits the range
 *
 * @typedef {object} Series
 * @property {string} period_end
 * @property {string[]} starts of the steps
 * @property {number[]} tokens in each step
 * @property {number[]} requests in each step
 * @property {{key: string, tokens: number[]}[]} series those that used most
 */

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const AT_LEAST_MS = 30_000; // after which what has not changed is read again
const OVER_MS = 300_000; // the same, of days that are over
const REST = 9; // times as long as a reading took, the next one waits
const HOURS_DAYS = 7; // that the server reads by the hour

/** What a port used in some days, over time and by feature, model, user or run. */
export class UsageView {
  #of = '';
  #used = -1;
  #at = 0;
  #took = 0;
  #over = false;
  #stepChosen = '';

  /**
   * @param {HTMLElement} root @param {() => {port: string, api: import('./api.js').Api}} target
   * @param {() => void} chosen somebody asks for something else
   */
  constructor(root, target, chosen) {
    this.root = root;
    this.target = target;
    this.views = need(root, '.usage');
    this.empty = need(root, '.empty');
    this.range = new RangePicker(need(root, '.look'), chosen);
    this.chart = new StackChart('bars', need(root, '.plot'), need(root, '.readout'), need(root, '.chart-legend'), need(root, 'details .scroll'));
    this.shares = new Shares(need(root, '.share-list'), /** @type {HTMLButtonElement} */ (need(root, '.more')));
    for (const radio of root.querySelectorAll('[name=by]')) radio.addEventListener('change', chosen);
    for (const radio of root.querySelectorAll('[name=step]')) radio.addEventListener('change', () => {
      this.#stepChosen = this.#checked('step');
      chosen();
    });
  }

  /** What somebody looks at. @returns {View} */
  get view() {
    return {range: this.range.text, by: this.#checked('by'), step: this.#stepChosen};
  }

  /** Looks at something; what is none of what there is, is what one sees at first. @param {View} view */
  set view({range, by, step}) {
    this.range.text = range;
    this.#stepChosen = ['hour', 'day', 'week'].includes(step) ? step : '';
    const radios = /** @type {NodeListOf<HTMLInputElement>} */ (this.root.querySelectorAll('[name=by]'));
    for (const radio of radios) radio.checked = radio.value === by;
    if (![...radios].some((r) => r.checked)) radios[0].checked = true;
  }

  /** Forgets everything: another port is shown. */
  reset() {
    this.#of = '';
    this.views.hidden = this.empty.hidden = true;
  }

  /** @param {string} name */
  #checked(name) {
    return need(this.root, `[name=${name}]:checked`).getAttribute('value') ?? '';
  }

  /** Checks a step that the days allow, what was chosen if they do. @param {number} days @returns {Step} */
  #step(days) {
    const allowed = /** @type {Record<Step, boolean>} */ ({hour: days <= HOURS_DAYS, day: true, week: days > 7});
    const fits = days <= 2 ? 'hour' : days <= 92 ? 'day' : 'week';
    const step = allowed[/** @type {Step} */ (this.#stepChosen)] ? this.#stepChosen : fits;
    for (const radio of /** @type {NodeListOf<HTMLInputElement>} */ (this.root.querySelectorAll('[name=step]'))) {
      radio.disabled = !allowed[/** @type {Step} */ (radio.value)];
      radio.checked = radio.value === step;
    }
    return /** @type {Step} */ (step);
  }

  /** What the controls ask for, and all that its answer depends on; null: no range. @param {Budget} b */
  #asked(b) {
    const range = this.range.value;
    if (!range) return null;
    const by = /** @type {import('./api.js').Dimension} */ (this.#checked('by'));
    const step = this.#step(daysOf(range, b));
    return {by, step, range, of: JSON.stringify([this.target().port, by, step, range, b.period, b.period_start, b.hard_cap_tokens])};
  }

  /** Whether what was read is as good as new. @param {Budget} b */
  #fresh(b) {
    const age = Date.now() - this.#at;
    if (age < REST * this.#took) return true;
    return this.#over ? age < OVER_MS : age < AT_LEAST_MS && b.used_tokens === this.#used;
  }

  /** Reads what is asked for, unless it cannot have changed. @param {Budget} b @param {AbortSignal} signal */
  async load(b, signal) {
    const {port, api} = this.target();
    this.range.offer(b.period, api.now());
    const asked = this.#asked(b);
    if (!asked || asked.of === this.#of && this.#fresh(b)) return;
    const {by, step, range, of} = asked;
    const began = Date.now();
    const [shares, series] = await Promise.all([api.usage(port, by, range, signal), api.series(port, by, step, range, signal)]);
    signal.throwIfAborted();
    if (of !== this.#asked(b)?.of) return; // something else was chosen meanwhile, and is read next
    [this.#of, this.#used, this.#at, this.#took] = [of, b.used_tokens, Date.now(), Date.now() - began];
    this.#over = Date.parse(series.period_end) <= api.now();
    this.#show(b, by, step, range, shares, series);
  }

  /**
   * @param {Budget} b @param {import('./api.js').Dimension} by @param {Step} step @param {import('./range.js').Range} range
   * @param {import('./api.js').Usage} shares @param {Series} series
   */
  #show(b, by, step, range, shares, series) {
    const {port, api} = this.target();
    this.views.hidden = shares.requests === 0;
    this.#explain(shares.requests === 0, range, b);
    this.shares.show(shares, by);
    const starts = series.starts.map((s) => new Date(s));
    const now = starts.findLastIndex((s) => s.getTime() <= api.now());
    const title = `Tokens per ${step}`;
    say(need(this.root, '#days-title'), title);
    this.chart.show({
      what: `${title} by ${by}`, step, starts, total: series.tokens, calls: series.requests, now: this.#over ? -1 : now,
      series: series.series.map((s) => ({name: keyName(s.key, by), tokens: s.tokens})),
      ahead: range.period === 'current' ? ahead(b, step, starts[now], api.now()) : null,
      pace: step === 'day' && range.period === 'current' ? evenPace(b) : null,
    });
    for (const e of this.root.querySelectorAll('.range-days')) say(e, daysText(shares)); // of the chart and of the shares
    need(this.root, '.csv').setAttribute('href', api.csv(port, by, range));
  }

  /** @param {boolean} nothing @param {import('./range.js').Range} range @param {Budget} b */
  #explain(nothing, range, b) {
    const first = range.period === 'current';
    const title = first ? `No usage ${b.period === 'month' ? 'this month' : THIS[b.period]} yet` : 'No usage in these days';
    if (nothing && this.empty.dataset.says !== title + b.port_id) {
      this.empty.replaceChildren(...(first ? firstStep('empty-title', title, 'Report a call, and it shows up here within a second or two. Beside the server, with a token that lasts an hour:', publishCommand(b.port_id)) : [h('h3', {id: 'empty-title', text: title})]));
      this.empty.dataset.says = title + b.port_id;
    }
    this.empty.hidden = !nothing;
  }
}

/** @param {import('./range.js').Range} range @param {Budget} b */
function daysOf(range, b) {
  if (range.from && range.to) return (Date.parse(range.to) - Date.parse(range.from)) / DAY;
  return range.period === 'current' || range.period === 'previous' ? {day: 1, week: 7, month: 30}[b.period] : 30;
}

/** @param {import('./api.js').Usage} u */
function daysText(u) {
  const [first, last] = [new Date(u.period_start), new Date(Date.parse(u.period_end) - DAY)];
  return first.getTime() === last.getTime() ? utcLongDay(first) : `${utcLongDay(first)} to ${utcLongDay(last)}`;
}

/** Tokens a day that would just reach the hard cap. @param {Budget} b */
function evenPace(b) {
  if (!b.hard_cap_tokens || !b.enabled || b.period === 'day') return null;
  return b.hard_cap_tokens / Math.max(1, (Date.parse(b.resets_at) - Date.parse(b.period_start)) / DAY);
}

/**
 * What the steps to come will use, if it goes on as it went. Where calls are refused it does not.
 * @param {Budget} b @param {Step} step @param {Date | undefined} underWay @param {number} now
 */
function ahead(b, step, underWay, now) {
  const more = (b.projected_tokens ?? 0) - b.used_tokens;
  if (more <= 0 || b.hard_cap_reached || step === 'week' || !underWay) return null;
  const rate = more / (Date.parse(b.resets_at) - now), length = step === 'hour' ? HOUR : DAY;
  return {each: rate * length, now: rate * (underWay.getTime() + length - now)};
}
