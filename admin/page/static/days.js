import {h, svg} from './dom.js';
import {compact, tokens, utcDate, utcDay, utcLongDay, utcWeekday} from './format.js';

/**
 * @typedef {object} Day
 * @property {Date} date
 * @property {number} tokens
 * @property {number} requests
 *
 * @typedef {object} Chart
 * @property {Day[]} days every day of the range, also those to come
 * @property {number} today index of the current day, -1 when it is not among them
 * @property {number | null} pace tokens a day that would just reach the hard cap
 */

const LEFT = 40;
const TOP = 10;
const BOTTOM = 22;

/**
 * Fills the gaps between the days that have usage.
 * @param {import('./api.js').Usage} usage @param {number} now
 * @returns {{days: Day[], today: number}}
 */
export function everyDay(usage, now) {
  const known = new Map(usage.by.map((s) => [s.key.slice(0, 10), s]));
  const [start, end] = [Date.parse(usage.period_start), Date.parse(usage.period_end)];
  const days = [];
  for (let t = start; t < end && days.length < 400; t += 86_400_000) {
    const date = new Date(t);
    const share = known.get(date.toISOString().slice(0, 10));
    days.push({date, tokens: share?.total_tokens ?? 0, requests: share?.requests ?? 0});
  }
  return {days, today: now >= start && now < end ? Math.floor((now - start) / 86_400_000) : -1};
}

/** Tokens per day as bars, and as the table behind them. */
export class DaysChart {
  /** @type {Chart | null} */
  #chart = null;
  #width = 0;
  #height = 0;

  /** @param {HTMLElement} plot @param {HTMLElement} readout @param {HTMLElement} table */
  constructor(plot, readout, table) {
    this.plot = plot;
    this.readout = readout;
    this.table = table;
    this.resized = new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width), height = Math.round(entry.contentRect.height);
      if (width === this.#width && height === this.#height) return;
      [this.#width, this.#height] = [width, height];
      this.#draw();
    });
    plot.addEventListener('pointermove', (e) => this.#point(e));
    plot.addEventListener('pointerleave', () => this.#rest());
  }

  /** @param {Chart} chart */
  show(chart) {
    const before = JSON.stringify(this.#chart);
    this.#chart = chart;
    if (before === JSON.stringify(chart)) return;
    this.#draw();
    this.#tabulate(chart);
  }

  #draw() {
    if (!this.#chart || this.#width < 60) return;
    this.plot.replaceChildren(picture(this.#chart, this.#width, this.#height));
    this.#rest();
  }

  /** @param {Chart} chart */
  #tabulate({days, today}) {
    const rows = days.slice(0, today < 0 ? days.length : today + 1).reverse();
    this.table.replaceChildren(h('table', {},
      h('thead', {}, h('tr', {}, h('th', {scope: 'col', text: 'Day'}), h('th', {scope: 'col', class: 'n', text: 'Tokens'}), h('th', {scope: 'col', class: 'n', text: 'Calls'}))),
      h('tbody', {}, ...rows.map((d) => h('tr', {},
        h('th', {scope: 'row', text: utcLongDay(d.date)}), h('td', {class: 'n', text: tokens(d.tokens)}), h('td', {class: 'n', text: tokens(d.requests)}))))));
  }

  /** Names the bar under the pointer. @param {PointerEvent} e */
  #point(e) {
    const chart = this.#chart;
    if (!chart) return;
    const x = e.clientX - this.plot.getBoundingClientRect().left - LEFT;
    const i = Math.floor(x / ((this.#width - LEFT) / chart.days.length));
    const day = chart.days[i];
    if (!day || (chart.today >= 0 && i > chart.today)) return this.#rest();
    this.plot.querySelectorAll('.bar').forEach((bar) => bar.classList.toggle('pointed', bar.getAttribute('data-day') === String(i)));
    this.readout.textContent = `${utcDay(day.date)}: ${tokens(day.tokens)} tokens, ${tokens(day.requests)} calls`;
  }

  #rest() {
    const chart = this.#chart;
    if (!chart) return;
    this.plot.querySelectorAll('.pointed').forEach((bar) => bar.classList.remove('pointed'));
    const day = chart.days[chart.today];
    const pace = paceShown(chart);
    this.readout.textContent = [day ? `Today ${tokens(day.tokens)}` : '', pace ? `dashed: even pace ${compact(Math.round(pace))}` : ''].filter(Boolean).join(' · ');
  }
}

/** The tokens a day that would just reach the cap, where that tells something. @param {Chart} chart */
function paceShown({days, pace}) {
  const most = Math.max(...days.map((d) => d.tokens), 1);
  return pace !== null && pace >= most * 0.15 && pace <= most * 2 ? pace : null;
}

/** @param {Chart} chart @param {number} width @param {number} height */
function picture(chart, width, height) {
  const {days, today} = chart;
  const pace = paceShown(chart);
  const top = niceCeiling(Math.max(...days.map((d) => d.tokens), 1, pace ?? 0));
  const floor = height - BOTTOM;
  const y = (/** @type {number} */ n) => floor - (n / top) * (floor - TOP);
  const step = (width - LEFT) / days.length;
  const bar = Math.max(2, Math.min(36, step * 0.68));

  const parts = [
    svg('title', {id: 'chart-title', text: `Tokens per day, ${utcDay(days[0].date)} to ${utcDay(days[days.length - 1].date)}`}),
    svg('desc', {id: 'chart-desc', text: describe(days, today)}),
    ...[0, top / 2, top].map((n) => svg('g', {class: n === 0 ? 'grid floor' : 'grid'},
      svg('line', {x1: LEFT, x2: width, y1: y(n), y2: y(n)}),
      n > 0 ? svg('text', {x: LEFT - 8, y: y(n) + 4, 'text-anchor': 'end', text: compact(n)}) : null)),
    pace === null ? null : svg('line', {class: 'pace', x1: LEFT, x2: width, y1: y(pace), y2: y(pace)}), // behind the bars
    ...days.map((d, i) => {
      const tall = d.tokens === 0 ? 0 : Math.max(2, floor - y(d.tokens));
      const r = Math.min(3, bar / 2, tall);
      const x = LEFT + i * step + (step - bar) / 2;
      return tall === 0 ? null : svg('path', {
        class: i === today ? 'bar now' : 'bar', 'data-day': i,
        d: `M${x} ${floor}v${-(tall - r)}q0 ${-r} ${r} ${-r}h${bar - 2 * r}q${r} 0 ${r} ${r}v${tall - r}z`,
      });
    }),
    ...labelled(days, width - LEFT).map((i) => svg('text', {
      class: i === today ? 'now' : '', x: LEFT + (i + 0.5) * step, y: height - 5, 'text-anchor': 'middle',
      text: days.length <= 7 ? utcWeekday(days[i].date) : utcDate(days[i].date),
    })),
  ];
  return svg('svg', {role: 'img', 'aria-labelledby': 'chart-title', 'aria-describedby': 'chart-desc', width, height, viewBox: `0 0 ${width} ${height}`}, ...parts);
}

/** @param {Day[]} days @param {number} today */
function describe(days, today) {
  const seen = days.slice(0, today < 0 ? days.length : today + 1);
  const busiest = seen.reduce((a, b) => (b.tokens > a.tokens ? b : a), seen[0]);
  if (!busiest || busiest.tokens === 0) return 'No tokens were used.';
  const mean = seen.reduce((sum, d) => sum + d.tokens, 0) / seen.length;
  return `${tokens(Math.round(mean))} a day on average; most on ${utcLongDay(busiest.date)}, ${tokens(busiest.tokens)}.`
    + (today >= 0 ? ` Today so far ${tokens(days[today].tokens)}.` : '');
}

/** Which days carry a label: as many as fit. @param {Day[]} days @param {number} width */
function labelled(days, width) {
  const each = Math.max(1, Math.ceil(days.length / Math.max(1, Math.floor(width / 30))));
  const every = days.length > 7 && each > 1 ? Math.max(each, width > 420 ? 3 : 5) : each;
  return days.map((_, i) => i).filter((i) => i % every === 0);
}

/** The next round number: no more than a third of the chart stays empty. @param {number} n */
function niceCeiling(n) {
  if (n <= 10) return Math.max(2, 2 * Math.ceil(n / 2)); // half of it is written too
  const power = 10 ** Math.floor(Math.log10(n));
  const factor = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((f) => f * power >= n) ?? 10;
  return factor * power;
}
