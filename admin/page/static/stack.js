import {h, svg} from './dom.js';
import {axis, tokens, utcDay, utcDate, utcLongDay, utcTime, utcWeekday} from './format.js';

/**
 * @typedef {object} Stack tokens over time, by something
 * @property {string} what 'Tokens by day and feature'
 * @property {'hour' | 'day' | 'week'} step
 * @property {Date[]} starts of the steps, also those to come
 * @property {number[]} total of each step
 * @property {number[]} [calls] in each step
 * @property {{name: string, tokens: number[]}[]} series those that are named, most first
 * @property {number} now index of the step under way, -1 when it is not among them
 * @property {number | null} [pace] tokens a step that would just reach the hard cap
 * @property {{each: number, now: number} | null} [ahead] tokens of each step to come, and of the rest of the one under way, if it goes on as it went
 * @property {string} [rest] what is read out while nothing is pointed at
 *
 * @typedef {object} Frame where a picture has room
 * @property {number} width
 * @property {number} height
 * @property {number} step from one to the next
 * @property {(i: number) => number} x the middle of a step
 */

const LEFT = 44;
const TOP = 10;
const BOTTOM = 22;
const NAMED = 5; // what people can tell apart by its colour
const EACH = {hour: 'an hour', day: 'a day', week: 'a week'};
const CEILINGS = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

/**
 * Tokens over time, stacked, as bars or as an area, with a readout for pointer and arrow
 * keys, and as a table.
 */
export class StackChart {
  /** @type {Stack | null} */
  #stack = null;
  #drawn = '';
  #width = 0;
  #height = 0;
  #at = -1;

  /**
   * @param {'bars' | 'area'} kind @param {HTMLElement} plot @param {HTMLElement} readout
   * @param {HTMLElement} legend @param {HTMLElement} table
   */
  constructor(kind, plot, readout, legend, table) {
    this.kind = kind;
    this.plot = plot;
    this.readout = readout;
    this.legend = legend;
    this.table = table;
    this.resized = new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width), height = Math.round(entry.contentRect.height);
      if (width === this.#width && height === this.#height) return;
      [this.#width, this.#height] = [width, height];
      this.#draw();
    });
    plot.addEventListener('pointermove', (e) => this.#point(this.#under(e.clientX - plot.getBoundingClientRect().left)));
    plot.addEventListener('pointerleave', () => this.#point(-1));
    plot.addEventListener('blur', () => this.#point(-1));
    plot.addEventListener('keydown', (e) => this.#key(e));
  }

  /** @param {Stack} stack */
  show(stack) {
    const now = JSON.stringify(stack);
    if (now === this.#drawn) return;
    this.#drawn = now;
    if (JSON.stringify(this.#stack?.starts) !== JSON.stringify(stack.starts)) this.#at = -1; // other steps: what is pointed at is gone
    const named = stack.series.slice(0, stack.series.length === NAMED + 1 ? NAMED + 1 : NAMED);
    const rest = stack.total.map((n, i) => n - named.reduce((sum, s) => sum + (s.tokens[i] ?? 0), 0));
    if (rest.some((n) => n > 0)) named.push({name: 'others', tokens: rest.map((n) => Math.max(0, n))});
    this.#stack = {...stack, series: named};
    const pace = paceShown(stack);
    this.legend.replaceChildren(
      ...named.map((s, i) => h('li', {}, h('span', {class: `swatch s${i}`, 'aria-hidden': 'true'}), s.name)),
      ...(stack.ahead ? [h('li', {}, h('span', {class: 'swatch part-heading', 'aria-hidden': 'true'}), 'projected')] : []),
      ...(pace ? [h('li', {}, h('span', {class: 'swatch dashes', 'aria-hidden': 'true'}), `even pace, ${tokens(Math.round(pace))} a day`)] : []));
    this.plot.setAttribute('aria-label', `${stack.what}: the arrow keys read it out`);
    this.#tabulate(this.#stack);
    this.#draw();
  }

  get #last() {
    const stack = this.#stack;
    if (!stack) return -1;
    return stack.now < 0 ? stack.starts.length - 1 : stack.now;
  }

  /** @returns {Frame} */
  get #frame() {
    const n = Math.max(1, this.#stack?.starts.length ?? 1);
    const bars = this.kind === 'bars';
    const step = bars ? (this.#width - LEFT) / n : (this.#width - LEFT - 6) / Math.max(1, n - 1);
    return {width: this.#width, height: this.#height, step, x: (i) => LEFT + (bars ? i + 0.5 : i) * step};
  }

  /** @param {number} x */
  #under(x) {
    const {step} = this.#frame;
    const i = this.kind === 'bars' ? Math.floor((x - LEFT) / step) : Math.round((x - LEFT) / step);
    return i > this.#last ? -1 : i;
  }

  /** @param {KeyboardEvent} e */
  #key(e) {
    const last = this.#last, at = this.#at;
    const to = /** @type {Record<string, number>} */ ({ArrowLeft: at < 0 ? last : at - 1, ArrowRight: at + 1, Home: 0, End: last, Escape: -1})[e.key];
    if (to === undefined) return;
    e.preventDefault();
    this.#point(e.key === 'Escape' ? -1 : Math.max(0, Math.min(last, to)));
  }

  /** @param {Stack} stack */
  #tabulate(stack) {
    const head = {hour: 'Hour', day: 'Day', week: 'Week'}[stack.step];
    const column = (/** @type {string} */ text) => h('th', {scope: 'col', class: 'n', text});
    const cell = (/** @type {number} */ n) => h('td', {class: 'n', text: tokens(n)});
    const rows = stack.starts.slice(0, this.#last + 1).map((start, i) => h('tr', {}, h('th', {scope: 'row', text: longName(start, stack.step)}),
      ...stack.series.map((s) => cell(s.tokens[i] ?? 0)), cell(stack.total[i]), stack.calls ? cell(stack.calls[i]) : null));
    this.table.replaceChildren(h('table', {},
      h('thead', {}, h('tr', {}, h('th', {scope: 'col', text: head}), ...stack.series.map((s) => column(s.name)), column('All'), stack.calls ? column('Calls') : null)),
      h('tbody', {}, ...rows.reverse())));
  }

  #draw() {
    const stack = this.#stack;
    if (!stack || this.#width < 60) return;
    const frame = this.#frame;
    const top = ceiling(Math.max(...stack.total, 1, paceShown(stack) ?? 0, stack.ahead?.each ?? 0, (stack.total[stack.now] ?? 0) + (stack.ahead?.now ?? 0)));
    const floor = this.#height - BOTTOM;
    const y = (/** @type {number} */ n) => floor - (n / top) * (floor - TOP);
    const grid = [0, top / 2, top].map((n) => svg('g', {class: n === 0 ? 'grid floor' : 'grid'},
      svg('line', {x1: LEFT, x2: frame.width, y1: y(n), y2: y(n)}),
      n > 0 ? svg('text', {x: LEFT - 8, y: y(n) + 4, 'text-anchor': 'end', text: axis(n)}) : null));
    const labels = labelled(stack, frame).map((i) => svg('text', {class: i === stack.now && this.kind === 'bars' ? 'now' : '', x: frame.x(i), y: this.#height - 5,
      'text-anchor': this.kind === 'area' && i === stack.starts.length - 1 ? 'end' : 'middle', text: shortName(stack.starts[i], stack)}));
    const picture = this.kind === 'bars' ? [...grid, ...bars(stack, frame, y)] : [...areas(stack, frame, y), ...grid];
    const cursor = this.kind === 'bars' ? svg('rect', {class: 'cursor', y: TOP, height: floor - TOP, width: frame.step, hidden: true}) : svg('line', {class: 'cursor', y1: TOP, y2: floor, hidden: true});
    const [from, to] = [stack.starts[0], stack.starts[stack.starts.length - 1]];
    const name = stack.step === 'hour' ? `${stack.what}, from ${longName(from, 'hour')}` : `${stack.what}, ${utcDay(from)} to ${utcDay(to)}`;
    this.plot.replaceChildren(svg('svg', {role: 'img', 'aria-label': name, 'aria-describedby': 'chart-desc', width: frame.width, height: frame.height, viewBox: `0 0 ${frame.width} ${frame.height}`},
      svg('desc', {id: 'chart-desc', text: describe(stack, this.#last)}), ...(this.kind === 'bars' ? [cursor, ...picture] : [...picture, cursor]), ...labels));
    this.#point(this.#at);
  }

  /** Tells of a step, of none with -1. @param {number} i */
  #point(i) {
    const stack = this.#stack;
    if (!stack) return;
    this.#at = i >= 0 && i <= this.#last ? i : -1;
    const cursor = this.plot.querySelector('.cursor');
    cursor?.toggleAttribute('hidden', this.#at < 0);
    if (this.#at < 0) return void (this.readout.textContent = stack.rest ?? '');
    const {x, step} = this.#frame;
    const at = x(this.#at);
    for (const [name, value] of Object.entries(this.kind === 'bars' ? {x: at - step / 2} : {x1: at, x2: at})) cursor?.setAttribute(name, String(value));
    const parts = stack.series.filter((s) => s.tokens[this.#at] > 0).map((s) => `${s.name} ${tokens(s.tokens[this.#at])}`);
    const calls = stack.calls ? `, ${tokens(stack.calls[this.#at])} calls` : '';
    this.readout.textContent = `${pointName(stack.starts[this.#at], stack.step)}: ${tokens(stack.total[this.#at])} tokens${calls}${parts.length > 1 ? `; ${parts.join(', ')}` : ''}`;
  }
}

/** @param {Stack} stack @param {Frame} frame @param {(n: number) => number} y */
function areas({total, series}, {x}, y) {
  const at = (/** @type {number} */ i, /** @type {number} */ n) => `${x(i).toFixed(1)} ${y(n).toFixed(1)}`;
  let below = total.map(() => 0);
  return series.map((s, no) => {
    const above = below.map((n, i) => n + (s.tokens[i] ?? 0));
    const path = `M${above.map((n, i) => at(i, n)).join('L')}L${below.map((n, i) => at(i, n)).reverse().join('L')}Z`;
    below = above;
    return svg('path', {class: `layer s${no}`, d: path});
  });
}

/** @param {Stack} stack @param {Frame} frame @param {(n: number) => number} y */
function bars(stack, {width, step, x}, y) {
  const {now, total, ahead} = stack;
  const wide = Math.max(1, Math.min(36, step * (step < 6 ? 0.85 : 0.68)));
  const pace = paceShown(stack);
  const bar = (/** @type {number} */ i, /** @type {number} */ from, /** @type {number} */ to) => ({x: (x(i) - wide / 2).toFixed(1), width: wide.toFixed(1),
    y: Math.min(y(to), y(0) - 1).toFixed(1), height: Math.max(y(from) - y(to), from === 0 ? 1 : 0).toFixed(1)});
  let below = total.map(() => 0);
  return [
    pace ? svg('line', {class: 'pace', x1: LEFT, x2: width, y1: y(pace), y2: y(pace)}) : null, // behind the bars
    ...stack.series.flatMap((s, no) => {
      const above = below.map((n, i) => n + (s.tokens[i] ?? 0));
      const rects = above.map((n, i) => n === below[i] ? null : svg('rect', {class: `bar s${no}`, ...bar(i, below[i], n)}));
      below = above;
      return rects;
    }),
    ...(ahead ? [hatching(), ...total.flatMap((n, i) => i < now ? [] : [svg('rect', {class: 'ahead', fill: 'url(#ahead)', ...bar(i, i === now ? n : 0, i === now ? n + ahead.now : ahead.each)})])] : []),
  ];
}

/** What fills the steps to come. */
const hatching = () => svg('pattern', {id: 'ahead', width: 6, height: 6, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)'},
  svg('rect', {class: 'ahead-ground', width: 6, height: 6}), svg('rect', {class: 'ahead-line', width: 2, height: 6}));

/** The tokens a day that would just reach the cap, where that tells something. @param {Stack} stack */
function paceShown({total, pace}) {
  const most = Math.max(...total, 1);
  return pace && pace >= most * 0.15 && pace <= most * 2 ? pace : null;
}

/** @param {Stack} stack @param {number} last */
function describe(stack, last) {
  const seen = stack.total.slice(0, last + 1);
  const most = Math.max(...seen, 0);
  if (most === 0) return 'No tokens were used.';
  const mean = seen.reduce((sum, n) => sum + n, 0) / seen.length;
  const to = stack.ahead ? ` ${tokens(Math.round(stack.ahead.each))} ${EACH[stack.step]} projected until the reset.` : '';
  return `${tokens(Math.round(mean))} ${EACH[stack.step]} on average; most on ${longName(stack.starts[seen.indexOf(most)], stack.step)}, ${tokens(most)}.${to} The table has the figures.`;
}

/** Which steps carry a label: as many as fit. @param {Stack} stack @param {Frame} frame */
function labelled(stack, {width, step}) {
  const n = stack.starts.length;
  const room = stack.step === 'day' && (n <= 7 || oneMonth(stack)) ? 30 : 60;
  const least = Math.ceil(n / Math.max(1, Math.floor((width - LEFT) / room)));
  const steps = {hour: [1, 2, 3, 4, 6, 12, 24, 48], day: [1, 2, 3, 5, 7, 14, 31, 62, 93], week: [1, 2, 4, 8, 13]}[stack.step];
  const every = steps.find((s) => s >= least) ?? least;
  const from = stack.now === n - 1 ? stack.now % every : 0; // the last one has a label, where it is now
  return stack.starts.map((_, i) => i).filter((i) => i % every === from && (i - 0.5) * step > 4 - step);
}

/** @param {Date} start @param {Stack} stack */
function shortName(start, {step, starts}) {
  if (step === 'hour') return start.getUTCHours() === 0 && starts.length > 24 ? utcDay(start) : utcTime(start);
  if (step === 'day' && starts.length <= 7) return utcWeekday(start);
  return step === 'day' && oneMonth({starts}) ? utcDate(start) : utcDay(start);
}

/** Whether the number of a day is enough. @param {Pick<Stack, 'starts'>} stack */
const oneMonth = ({starts}) => starts[0].getUTCMonth() === starts[starts.length - 1].getUTCMonth() && starts.length <= 31;

/** @param {Date} start @param {Stack['step']} step */
const pointName = (start, step) => ({hour: `${utcDay(start)}, ${utcTime(start)}`, day: utcDay(start), week: `Week of ${utcDay(start)}`})[step];

/** @param {Date} start @param {Stack['step']} step */
const longName = (start, step) => ({hour: `${utcLongDay(start)}, ${utcTime(start)}`, day: utcLongDay(start), week: `week of ${utcLongDay(start)}`})[step];

/** The next round number: no more than a third of the chart stays empty. @param {number} n */
export function ceiling(n) {
  if (n <= 10) return Math.max(2, 2 * Math.ceil(n / 2)); // half of it is written too
  const power = 10 ** Math.floor(Math.log10(n));
  return (CEILINGS.find((c) => c * power >= n) ?? 10) * power;
}
