/** What a change of a budget does at once: the back-test tells of the past, this of now. */
import {DEFAULT, Problem} from './api.js';
import {THIS} from './facts.js';
import {tokens, utcMoment} from './format.js';
import {raised} from './gauge.js';
import {named, spent, tightest} from './limit-words.js';
import {bounds, isoDay} from './period.js';

/**
 * @typedef {import('./api.js').Budget} Budget
 * @typedef {import('./api.js').Settings & {limits?: import('./api.js').Limit[]}} Settings
 *
 * @typedef {object} Effect
 * @property {string} text
 * @property {boolean} drastic whether one is asked before it is done
 *
 * @typedef {object} DefaultEffect what a default budget does to the ports that have none of their own
 * @property {number} ports how many these are
 * @property {number} refused how many used as much as its hard cap
 * @property {number} refused_now the same, of the default budget that is stored
 */

/**
 * @param {import('./api.js').Api} api @param {string} port
 * @param {Budget} b what binds now, and what is used of it
 * @param {Settings | null} to null: the port is given back to the default budget
 * @returns {Promise<Effect>}
 */
export async function effectOf(api, port, b, to) {
  if (port === DEFAULT) return ofDefault(b, /** @type {Settings} */ (to), await api.defaultEffect(/** @type {Settings} */ (to)));
  let settings = to;
  try {
    settings ??= {extra_tokens: undefined, extra_until: undefined, ...await api.budget(DEFAULT)};
  } catch (e) {
    if (!(e instanceof Problem) || e.status !== 403) throw e;
    return {text: 'The default budget binds from now on. You may not see it.', drastic: false};
  }
  return ofCaps(b, settings, await spentIn(api, b, settings.period), api.now());
}

/** What is used and held in the running period, which may be another than the budget has. @param {import('./api.js').Api} api @param {Budget} b @param {import('./api.js').Period} period */
async function spentIn(api, b, period) {
  if (period === b.period) return b.used_tokens + b.held_tokens;
  const [from, to] = bounds(period, api.now()).map(isoDay);
  return (await api.usage(b.port_id, 'feature', {from, to})).used_tokens + b.held_tokens;
}

/** @param {Budget} b @param {Settings} to @param {number} spent in the period of to @param {number} now @returns {Effect} */
export function ofCaps(b, to, spent, now) {
  const will = raised({...b, ...to}, now);
  const {hard_cap_tokens: hard, soft_cap_tokens: soft} = will;
  const stopped = b.hard_cap_reached;
  const limits = (to.limits ?? b.limits).filter((l) => l.hard !== undefined);
  if (!will.enabled) {
    if (!b.enabled) return {text: 'Nothing changes: the caps are not enforced.', drastic: false};
    return {text: 'From now on no call is refused and nobody is warned, neither by the caps nor by limits.', drastic: b.hard_cap_tokens !== null || b.limits.some((l) => l.hard !== undefined)};
  }
  const used = `${tokens(spent)} tokens are used${b.held_tokens > 0 ? ' or held' : ''} ${THIS[to.period]}`;
  const {text, drastic} = ofHard() ?? {text: ofSoft(), drastic: false};
  const reached = b.enabled ? [] : limits.filter(atHard).map((l) => l.name);
  if (reached.length === 0) return {text, drastic};
  return {text: `${text} ${reached.length === 1 ? 'The limit' : 'The limits'} ${named(reached)} ${reached.length === 1 ? 'is' : 'are'} reached: calls that match are refused from now on.`, drastic: true};

  function ofHard() {
    if (hard !== null && spent >= hard) {
      const until = hard === 0 ? '' : `, until ${utcMoment(new Date(bounds(to.period, now)[1]))}`;
      const text = hard === 0 ? 'The hard cap is 0' : used;
      return stopped ? {text: `${text}: all calls stay refused${until}.`, drastic: false} : {text: `${text}: all calls are refused from now on${until}.`, drastic: true};
    }
    if (hard === null && b.enabled && b.hard_cap_tokens !== null) {
      return {text: `${stopped ? 'Calls are allowed again. ' : ''}Without a hard cap no call is refused from now on, ${limits.length > 0 ? 'but by the limits' : 'however much is used'}.`, drastic: true};
    }
    if (hard !== null && stopped) return {text: `Calls are allowed again: ${tokens(hard - spent)} tokens are left until the hard cap.`, drastic: false};
    return null;
  }

  function ofSoft() {
    const left = hard === null ? '' : `, ${tokens(hard - spent)} are left`;
    if (soft !== null && spent >= soft) return `${used}: calls are allowed with a warning ${b.soft_cap_reached ? 'as before' : 'from now on'}${left}${left && ' until the hard cap'}.`;
    if (hard !== null) return `The hard cap refuses no call now: ${used}${left}.`;
    return soft === null ? 'Without caps nothing is refused.' : `Nobody is warned now: ${used}.`;
  }
}

/** @param {Partial<import('./api.js').Counted> & import('./api.js').Limit} l */
const atHard = (l) => l.used !== undefined && spent(tightest(l)) >= (l.hard ?? Infinity);

/**
 * @param {Settings} b @param {Settings} to
 * @param {DefaultEffect} effect
 * @returns {Effect}
 */
export function ofDefault(b, to, {ports, refused, refused_now}) {
  const bound = ports === 1 ? '1 port that has no budget of its own' : `${tokens(ports)} ports that have no budget of their own`;
  const [stops, stopped] = [to.enabled && to.hard_cap_tokens !== null, b.enabled && b.hard_cap_tokens !== null];
  if (!stops) return {text: stopped ? `No cap refuses a call of ${bound} from now on, however much is used.` : `It refuses no call of ${bound}.`, drastic: stopped && ports > 0};
  if (to.hard_cap_tokens === 0) {
    const before = stopped && b.hard_cap_tokens === 0;
    return {text: `All calls of ${bound}, and of every port that comes, are refused ${before ? 'as before' : 'from now on'}.`, drastic: !before};
  }
  const which = `used as much as the hard cap ${THIS[to.period]}`;
  if (refused === 0) return {text: `It binds ${bound}: none ${which}${refused_now > 0 ? `, ${tokens(refused_now)} may call again` : ''}.`, drastic: false};
  return {text: `It binds ${bound}: ${tokens(refused)} ${which}, and all calls of ${refused === 1 ? 'that one' : 'those'} are refused ${refused <= refused_now ? 'as before' : 'from now on'}.`, drastic: refused > refused_now};
}
