import {alertItem} from './alerts.js';
import {h, need, say} from './dom.js';
import {sentence, tokens, utcDay, utcMoment} from './format.js';

/**
 * @typedef {object} Quarantine
 * @property {number} total
 * @property {{sequence: number, reason: string, error: string, quarantined_at: string, payload: string, bytes: number}[]} events
 * @property {number} next 0: these are all
 *
 * @typedef {object} Unsettled
 * @property {{day: string, service: string, feature: string, holds: number, tokens: number}[]} holds
 * @property {string} next there are more
 */

const EVERY_MS = 30_000;
const FIRST = 5;
const MOST = 100; // the server's largest page

/**
 * What may need somebody: a port's alerts, and what is not in its figures, events that could not
 * be booked, and reservations whose usage nobody reported.
 */
export class Attention {
  #of = '';
  #at = 0;
  #shown = '';
  #shownAlerts = '';
  #most = {events: FIRST, alerts: FIRST};

  /** @param {HTMLElement} card @param {() => {port: string, api: import('./api.js').Api}} target @param {() => void} changed */
  constructor(card, target, changed) {
    this.root = need(card, '.attention');
    this.target = target;
    this.quarantine = need(this.root, '.quarantine');
    this.unsettled = need(this.root, '.unsettled');
    this.alerts = need(card, '.alerts');
    this.more = {events: need(card, '.more-quarantined'), alerts: need(card, '.more-alerts')};
    for (const of of /** @type {const} */ (['events', 'alerts'])) this.more[of].addEventListener('click', () => {
      this.#most[of] = MOST;
      this.#at = 0;
      changed();
    });
  }

  reset() {
    this.#of = this.#shown = this.#shownAlerts = '';
    this.#most = {events: FIRST, alerts: FIRST};
    this.root.hidden = this.alerts.hidden = true;
  }

  /** Reads it again if it is due. What the server cannot tell now is left as it was. @param {AbortSignal} signal */
  async load(signal) {
    const {port, api} = this.target();
    if (port === this.#of && Date.now() - this.#at < EVERY_MS) return;
    [this.#of, this.#at] = [port, Date.now()];
    const most = {...this.#most};
    const [quarantined, unsettled, alerts] = await Promise.allSettled([api.quarantine(port, most.events, signal), api.unsettled(port, signal), api.alerts(port, most.alerts + 1, signal)]);
    signal.throwIfAborted();
    if (port !== this.#of) return;
    if (alerts.status === 'fulfilled') this.#showAlerts(alerts.value.alerts, most.alerts);
    if (quarantined.status === 'fulfilled' && unsettled.status === 'fulfilled') this.#show(port, quarantined.value, unsettled.value);
  }

  /** @param {import('./alerts.js').Alert[]} alerts newest first @param {number} most how many are shown */
  #showAlerts(alerts, most) {
    const now = JSON.stringify([alerts, most]);
    if (now === this.#shownAlerts) return;
    this.#shownAlerts = now;
    this.alerts.hidden = alerts.length === 0;
    need(this.alerts, 'ul').replaceChildren(...alerts.slice(0, most).map(alertItem));
    this.more.alerts.hidden = alerts.length <= most || most === MOST;
  }

  /** @param {string} port @param {Quarantine} quarantined @param {Unsettled} unsettled */
  #show(port, quarantined, unsettled) {
    const now = JSON.stringify([quarantined, unsettled]);
    if (now === this.#shown) return;
    this.#shown = now;
    const {events, total, next} = quarantined;
    this.quarantine.hidden = total === 0;
    this.unsettled.hidden = unsettled.holds.length === 0;
    this.root.hidden = this.quarantine.hidden && this.unsettled.hidden;
    say(need(this.quarantine, 'h4'), total === 1 ? 'An event could not be booked' : `${tokens(total)} events could not be booked`);
    need(this.quarantine, 'ul').replaceChildren(...events.map(item));
    this.more.events.hidden = next === 0 || this.#most.events === MOST;
    say(this.more.events, `Show ${total > MOST ? `the first ${MOST}` : `all ${tokens(total)}`}`);
    const held = unsettled.holds.reduce((sum, u) => sum + u.tokens, 0);
    say(need(this.unsettled, 'h4'), `Reserved and never reported: ${tokens(held)}${unsettled.next ? ' or more' : ''} tokens in 31 days`);
    say(need(this.unsettled, 'code'), `tidegate holds ${port}`);
    need(this.unsettled, '.scroll').replaceChildren(h('table', {},
      h('thead', {}, h('tr', {}, ...['Day', 'Service', 'Feature', 'Reservations', 'Tokens'].map((text, i) => h('th', {scope: 'col', class: i > 2 ? 'n' : null, text})))),
      h('tbody', {}, ...unsettled.holds.map((u) => h('tr', {}, h('th', {scope: 'row', text: utcDay(new Date(u.day))}), h('td', {text: u.service || 'not named'}), h('td', {text: u.feature || 'not named'}),
        h('td', {class: 'n', text: tokens(u.holds)}), h('td', {class: 'n', text: tokens(u.tokens)}))))));
  }
}

/** @param {Quarantine['events'][number]} e */
const item = (e) => h('li', {},
  h('p', {}, h('time', {datetime: e.quarantined_at, text: utcMoment(new Date(e.quarantined_at))}), ' ', h('b', {text: e.reason}), ' ', sentence(e.error)),
  e.payload ? h('details', {}, h('summary', {text: 'The event'}), h('pre', {tabindex: 0, text: e.payload + (e.bytes > e.payload.length ? '…' : '')})) : null,
  h('p', {class: 'how'}, 'To book it after all, once the cause is mended: ', h('code', {text: `tidegate quarantine replay ${e.sequence}`})));
