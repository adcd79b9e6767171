import {h, need, place, say} from './dom.js';
import {duration, percent, tokens, utcDay, utcMonth, utcTime} from './format.js';
import {portLink, tableLink} from './links.js';
import {StackChart} from './stack.js';

/**
 * @typedef {{start: string, tokens: number, before: number}} Spell
 *
 * @typedef {object} Overview
 * @property {number} ports
 * @property {Record<import('./api.js').State, number>} states
 * @property {Spell} today
 * @property {Spell} month
 * @property {string[]} days
 * @property {number[]} tokens
 * @property {{key: string, total_tokens: number, days?: number[]}[]} features
 * @property {{key: string, total_tokens: number}[]} models
 * @property {{port_id: string, name: string, total_tokens: number, state: import('./api.js').State}[]} top_ports
 * @property {{port_id: string, name: string, user: string, total_tokens: number}[]} top_users
 * @property {number | null} top_users_of_ports null: of all ports
 * @property {{port_id: string, name: string, limit: string, limit_value: string, threshold: string, reached: number, unit: string, at: string}[]} alerts
 * @property {number} refused_today
 * @property {{port_id: string, name: string, limit: string, day: string, refused: number, last_at: string}[]} refusals
 * @property {{holds: number, tokens: number, port_id: string, name: string}} unsettled
 * @property {{messages: number, oldest_at: string | null} | null} backlog
 * @property {string} as_of
 */

const STARTED = 1000; // events that wait a second are on their way

/** How all ports stand: where to look first. */
export class OverviewPage {
  #drawn = '';

  /** @param {HTMLElement} root @param {import('./api.js').Api} api */
  constructor(root, api) {
    this.root = root;
    this.api = api;
    this.chart = new StackChart('area', need(root, '.area'), need(root, '.area-readout'), need(root, '.legend'), need(root, '.area-table'));
    this.chart.resized.observe(this.chart.plot);
  }

  /** @param {AbortSignal} [signal] */
  async refresh(signal) {
    const o = await this.api.overview(signal);
    signal?.throwIfAborted();
    this.root.removeAttribute('aria-busy');
    const now = this.api.now();
    say(need(this.root, '.overview-as-of'), `As of ${utcTime(new Date(o.as_of))}. All times and days are UTC.`);
    const state = JSON.stringify({...o, as_of: ''});
    if (state === this.#drawn) return this.#waiting(o, now);
    this.#drawn = state;
    this.#tiles(o, now);
    this.chart.show({what: 'Tokens by day and feature', step: 'day', starts: o.days.map((d) => new Date(d)), total: o.tokens, now: o.days.length - 1, rest: `The last ${o.days.length} days`,
      series: o.features.map((f) => ({name: f.key, tokens: f.days ?? []}))});
    const [used, month] = [o.tokens.reduce((sum, n) => sum + n, 0), o.month.tokens];
    bars(need(this.root, '.top-ports'), o.top_ports.map((p) => ({label: p.name || p.port_id, href: portLink(p.port_id), tokens: p.total_tokens})), month);
    bars(need(this.root, '.top-features'), o.features.map((f) => ({label: f.key, tokens: f.total_tokens})), used);
    bars(need(this.root, '.top-models'), o.models.map((m) => ({label: m.key, tokens: m.total_tokens})), used);
    say(need(this.root, '.top-users-of'), o.top_users_of_ports === null ? 'this month' : `this month, of the ${o.top_users_of_ports === 1 ? 'port' : `${tokens(o.top_users_of_ports)} ports`} that used most`);
    bars(need(this.root, '.top-users'), o.top_users.map((u) => ({label: u.user, href: portLink(u.port_id, {by: 'user', range: o.month.start.slice(0, 7)}), of: h('a', {href: portLink(u.port_id), text: `in ${u.name || u.port_id}`}), tokens: u.total_tokens})), month);
    this.#alerts(o);
    this.#refusals(o);
  }

  /** @param {Overview} o @param {number} now */
  #tiles(o, now) {
    need(this.root, '.tiles').replaceChildren(
      tile('Tokens today', h('a', {href: tableLink({sort: 'last_call'}), text: tokens(o.today.tokens)}), change(o.today, 'yesterday')),
      tile(`Tokens in ${utcMonth(new Date(o.month.start))}`, h('a', {href: tableLink({sort: 'used'}), text: tokens(o.month.tokens)}), change(o.month, 'last month')),
      tile('Ports at their hard cap', tokens(o.states.hard), h('span', {}, o.states.hard === 0 ? h('a', {href: tableLink({sort: 'share'}), text: 'See the fullest'}) : h('a', {href: tableLink({state: 'hard', sort: 'share'}), text: 'Calls are refused: see them'}),
        '. ', o.refused_today === 0 ? 'Nothing was refused today.' : h('a', {href: '#refusals-title', text: `${tokens(o.refused_today)} refused today`})), o.states.hard > 0 ? 'hard' : ''),
      tile('Ports at their soft cap', tokens(o.states.soft), o.states.soft === 0 ? h('a', {href: tableLink({}), text: `Of ${tokens(o.ports)} ${o.ports === 1 ? 'port' : 'ports'}`}) : h('a', {href: tableLink({state: 'soft', sort: 'share'}), text: 'See how near they are'}), o.states.soft > 0 ? 'soft' : ''),
      tile('Tokens never reported, 31 days', tokens(o.unsettled.tokens), o.unsettled.holds === 0 && o.unsettled.tokens === 0 ? 'Every reservation was settled.'
        : h('span', {}, `${tokens(o.unsettled.holds)} ${o.unsettled.holds === 1 ? 'reservation' : 'reservations'}, most of `, portName(o.unsettled), ': ', h('code', {text: `tidegate holds ${o.unsettled.port_id}`}))),
      ...(o.backlog ? [h('div', {class: 'tile waiting'}, h('dt', {text: 'Messages waiting to be booked'}), h('dd', {class: 'figure'}), h('dd', {class: 'note'}))] : []));
    this.#waiting(o, now);
  }

  /** @param {Overview} o @param {number} now */
  #waiting({backlog}, now) {
    const e = this.root.querySelector('.waiting');
    if (!e || !backlog) return;
    const age = backlog.oldest_at ? now - Date.parse(backlog.oldest_at) : 0;
    say(need(e, '.figure'), tokens(backlog.messages));
    say(need(e, '.note'), backlog.messages === 0 ? 'Everything is booked.' : age < STARTED ? 'The oldest came just now.' : `The oldest came ${duration(age)} ago.`);
  }

  /** @param {Overview} o */
  #alerts(o) {
    const list = need(this.root, '.alerts');
    if (o.alerts.length === 0) return list.replaceChildren(h('p', {class: 'none', text: 'No port has reached a cap yet.'}));
    list.replaceChildren(h('ol', {}, ...o.alerts.map((a) => h('li', {},
      h('span', {}, portName(a), ` reached ${reached(a)}`),
      h('time', {datetime: a.at, text: `${utcDay(new Date(a.at))}, ${utcTime(new Date(a.at))}`})))));
  }

  /** @param {Overview} o */
  #refusals(o) {
    const list = need(this.root, '.refusals');
    if (o.refusals.length === 0) return list.replaceChildren(h('p', {class: 'none', text: 'Nothing was refused in the last 7 days.'}));
    list.replaceChildren(h('ol', {}, ...o.refusals.map((r) => h('li', {},
      h('span', {}, portName(r), refusedBy(r, o.days.at(-1) ?? '')),
      h('time', {datetime: r.last_at, text: `last ${utcDay(new Date(r.last_at))}, ${utcTime(new Date(r.last_at))}`})))));
  }
}

/** A port as people know it, as a link to it. @param {{port_id: string, name: string}} p */
const portName = ({port_id: id, name}) => h('a', {href: portLink(id), title: name ? id : null, text: name || id});

/** @param {Overview['refusals'][number]} r @param {string} today */
function refusedBy(r, today) {
  const by = r.limit === 'port' ? 'its hard cap' : `the limit ${r.limit}`;
  return ` ${tokens(r.refused)} ${r.refused === 1 ? 'time' : 'times'} ${r.day === today ? 'today' : `on ${utcDay(new Date(r.day))}`} by ${by}`;
}

/** @param {Overview['alerts'][number]} a */
function reached(a) {
  const cap = a.threshold === 'soft' || a.threshold === 'hard' ? `${a.threshold} cap` : a.threshold;
  const of = a.limit === 'port' ? 'its' : `the limit ${a.limit}’s`;
  return `${of} ${cap}${a.limit_value ? ` for ${a.limit_value}` : ''}, ${tokens(a.reached)} ${a.unit === 'requests' ? 'calls' : a.unit === 'weighted' ? 'weighted tokens' : 'tokens'}`;
}

/** @param {string} name @param {string | Node} figure @param {string | Node} note @param {string} [level] */
const tile = (name, figure, note, level = '') => h('div', {class: 'tile', 'data-level': level || null},
  h('dt', {text: name}), h('dd', {class: 'figure'}, figure), h('dd', {class: 'note'}, note));

/** @param {{tokens: number, before: number}} spell @param {string} before */
function change({tokens: now, before: then}, before) {
  if (then === 0) return `Nothing by then ${before}.`;
  const ratio = now / then;
  const how = ratio >= 10 ? `${tokens(Math.floor(ratio))} times` : ratio >= 1 ? `${percent(ratio - 1)} more than` : `${percent(1 - ratio)} less than`;
  return `${how} the ${tokens(then)} by then ${before}.`;
}

/**
 * @param {HTMLElement} root
 * @param {{label: string, tokens: number, href?: string, of?: Node}[]} rows of says what a row belongs to
 * @param {number} total
 */
function bars(root, rows, total) {
  if (rows.length === 0) return root.replaceChildren(h('p', {class: 'none', text: 'Nothing was used yet.'}));
  root.replaceChildren(h('ol', {}, ...rows.map((r) => {
    const part = total > 0 ? Math.min(1, r.tokens / total) : 0;
    const bar = h('span', {class: 'length', 'aria-hidden': 'true'});
    place(bar, '--to', part);
    return h('li', {}, r.href ? h('a', {class: 'key', href: r.href, title: r.label, text: r.label}) : h('span', {class: 'key', title: r.label, text: r.label}),
      h('span', {class: 'amount', text: tokens(r.tokens)}), h('span', {class: 'part', text: percent(part)}), r.of ? h('span', {class: 'belongs'}, r.of) : null, bar);
  })));
}
