import {h, svg} from './dom.js';
import {compact, tokens, utcDay, utcLongDay} from './format.js';

/**
 * @typedef {object} Stack
 * @property {string[]} days like 2026-11-23
 * @property {number[]} total of each day
 * @property {{name: string, days: number[]}[]} series those that are named, most first
 */

const LEFT = 44;
const TOP = 10;
const BOTTOM = 22;
const NAMED = 5; // what people can tell apart by its colour
const CEILINGS = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

/** Tokens by day, stacked, with a readout for pointer and arrow keys, and as a table. */
export class AreaChart {
  /** @type {Stack | null} */
  #stack = null;
  #width = 0;
  #height = 0;
  #at = -1;

  /** @param {HTMLElement} plot @param {HTMLElement} readout @param {HTMLElement} legend @param {HTMLElement} table */
  constructor(plot, readout, legend, table) {
    this.plot = plot;
    this.readout = readout;
    this.legend = legend;
    this.table = table;
    new ResizeObserver(([entry]) => {
      [this.#width, this.#height] = [Math.round(entry.contentRect.width), Math.round(entry.contentRect.height)];
      this.#draw();
    }).observe(plot);
    plot.addEventListener('pointermove', (e) => this.#point(Math.round((e.clientX - plot.getBoundingClientRect().left - LEFT) / this.#step)));
    plot.addEventListener('pointerleave', () => this.#point(-1));
    plot.addEventListener('blur', () => this.#point(-1));
    plot.addEventListener('keydown', (e) => {
      const last = (this.#stack?.days.length ?? 0) - 1;
      const at = /** @type {Record<string, number>} */ ({ArrowLeft: this.#at < 0 ? last : this.#at - 1, ArrowRight: this.#at + 1, Home: 0, End: last, Escape: -1})[e.key];
      if (at === undefined) return;
      e.preventDefault();
      this.#point(e.key === 'Escape' ? -1 : Math.max(0, Math.min(last, at)));
    });
  }

  get #step() {
    return (this.#width - LEFT - 6) / Math.max(1, (this.#stack?.days.length ?? 1) - 1);
  }

  /** @param {Stack} stack */
  show(stack) {
    const named = stack.series.slice(0, stack.series.length === NAMED + 1 ? NAMED + 1 : NAMED);
    const rest = stack.total.map((n, i) => n - named.reduce((sum, s) => sum + (s.days[i] ?? 0), 0));
    if (rest.some((n) => n > 0)) named.push({name: 'others', days: rest.map((n) => Math.max(0, n))});
    this.#stack = {...stack, series: named};
    this.legend.replaceChildren(...named.map((s, i) => h('li', {}, h('span', {class: `swatch s${i}`, 'aria-hidden': 'true'}), s.name)));
    this.table.replaceChildren(h('table', {},
      h('thead', {}, h('tr', {}, h('th', {scope: 'col', text: 'Day'}), ...named.map((s) => h('th', {scope: 'col', class: 'n', text: s.name})), h('th', {scope: 'col', class: 'n', text: 'All'}))),
      h('tbody', {}, ...stack.days.map((day, i) => h('tr', {}, h('th', {scope: 'row', text: utcLongDay(new Date(day))}),
        ...named.map((s) => h('td', {class: 'n', text: tokens(s.days[i] ?? 0)})), h('td', {class: 'n', text: tokens(stack.total[i])}))).reverse())));
    this.#draw();
  }

  #draw() {
    if (!this.#stack || this.#width < 60) return;
    this.plot.replaceChildren(picture(this.#stack, this.#width, this.#height, this.#step));
    this.#point(-1);
  }

  /** Tells of a day, of none with -1. @param {number} i */
  #point(i) {
    const stack = this.#stack;
    if (!stack) return;
    this.#at = i >= 0 && i < stack.days.length ? i : -1;
    const line = this.plot.querySelector('.cursor');
    line?.toggleAttribute('hidden', this.#at < 0);
    if (this.#at < 0) return void (this.readout.textContent = `The last ${stack.days.length} days`);
    const x = String(LEFT + this.#at * this.#step);
    line?.setAttribute('x1', x);
    line?.setAttribute('x2', x);
    const parts = stack.series.filter((s) => s.days[this.#at] > 0).map((s) => `${s.name} ${tokens(s.days[this.#at])}`);
    this.readout.textContent = `${utcDay(new Date(stack.days[this.#at]))}: ${tokens(stack.total[this.#at])} tokens${parts.length > 1 ? `; ${parts.join(', ')}` : ''}`;
  }
}

/** @param {Stack} stack @param {number} width @param {number} height @param {number} step */
function picture({days, total, series}, width, height, step) {
  const top = ceiling(Math.max(...total, 1));
  const floor = height - BOTTOM;
  const x = (/** @type {number} */ i) => (LEFT + i * step).toFixed(1);
  const y = (/** @type {number} */ n) => (floor - (n / top) * (floor - TOP)).toFixed(1);
  let below = total.map(() => 0);
  const areas = series.map((s, no) => {
    const above = below.map((n, i) => n + (s.days[i] ?? 0));
    const path = `M${above.map((n, i) => `${x(i)} ${y(n)}`).join('L')}L${below.map((n, i) => `${x(i)} ${y(n)}`).reverse().join('L')}Z`;
    below = above;
    return svg('path', {class: `layer s${no}`, d: path});
  });
  const labels = Math.max(2, Math.min(6, Math.floor((width - LEFT) / 80)));
  const every = Math.ceil((days.length - 1) / labels);
  const shown = days.map((_, i) => i).filter((i) => (days.length - 1 - i) % every === 0 && i * step > 24);
  return svg('svg', {role: 'img', 'aria-label': `Tokens by day and feature, ${utcDay(new Date(days[0]))} to ${utcDay(new Date(days[days.length - 1]))}. The table has the figures.`, width, height, viewBox: `0 0 ${width} ${height}`},
    ...areas,
    ...[0, top / 2, top].map((n) => svg('g', {class: n === 0 ? 'grid floor' : 'grid'},
      svg('line', {x1: LEFT, x2: width, y1: y(n), y2: y(n)}),
      n > 0 ? svg('text', {x: LEFT - 8, y: Number(y(n)) + 4, 'text-anchor': 'end', text: compact(n)}) : null)),
    ...shown.map((i) => svg('text', {x: x(i), y: height - 5, 'text-anchor': i === days.length - 1 ? 'end' : 'middle', text: utcDay(new Date(days[i]))})),
    svg('line', {class: 'cursor', y1: TOP, y2: floor, hidden: true}));
}

/** The next round number. @param {number} n */
function ceiling(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return (CEILINGS.find((c) => c * power >= n) ?? 10) * power;
}
