/** What to store or to remove a limit does at once. */
import {DEFAULT, Problem} from './api.js';
import {percent, tokens, utcMoment} from './format.js';
import {definition, labels, named, NOW, spent, tightest, unitOf, valueName, which} from './limit-words.js';
import {bounds} from './period.js';

/**
 * @typedef {import('./api.js').Budget} Budget
 * @typedef {import('./api.js').Limit} Limit
 * @typedef {import('./effect.js').Effect} Effect
 */

const NAMED = 3;

/**
 * @param {import('./api.js').Api} api @param {string} port @param {Budget} b
 * @param {Limit} limit as it is to be stored @param {string} [edited] the name that it is stored under
 * @returns {Promise<Effect>}
 */
export async function effectOfLimit(api, port, b, limit, edited) {
  if (port === DEFAULT) return {text: '', drastic: false}; // each port counts by itself
  if (!b.enabled && b.version > 0 && !b.default) return {text: 'It binds no call now: the caps are not enforced.', drastic: false};
  const stored = b.limits.find((l) => l.name === edited);
  const counted = stored && sameCount(stored, limit) ? stored : undefined;
  const before = counted && b.enabled ? counted.hard ?? Infinity : Infinity;
  if (limit.per && limit.hard === undefined) return {text: 'It refuses no call.', drastic: false};
  const until = limit.window === 'total' ? '' : `, until ${utcMoment(new Date(bounds(limit.window, api.now())[1]))}`;
  /** @type {import('./limit-types.js').LimitNow | undefined} */
  let now;
  try {
    if (!counted) now = await api.limitNow(port, {...limit, name: 'tried'}); // its name may not be typed yet
  } catch (e) {
    if (e instanceof Problem && e.status === 503) return {text: `What it counts ${NOW[limit.window]} cannot be said in time. It is added up when it is saved.`, drastic: false};
    throw e;
  }
  if (!limit.per) {
    const count = counted ?? now;
    return ofAll(limit, count?.used ?? 0, count?.held ?? 0, before, until);
  }
  const hard = limit.hard ?? Infinity;
  if (!counted) {
    const over = (now?.top ?? []).filter((v) => spent(v) >= hard), count = now?.reached ?? 0;
    return ofOver(limit, over.map((v) => v.value), count, false, count > 0, until);
  }
  const {counters, next} = await api.limitUsage(port, counted.name);
  const over = counters.filter((c) => spent(c) >= hard);
  return ofOver(limit, over.map((c) => c.value), over.length, next !== '' && over.length === counters.length, over.some((c) => spent(c) < before), until);
}

/** @param {Limit} l @param {number} used @param {number} held @param {number} before the cap that refuses already @param {string} until @returns {Effect} */
function ofAll(l, used, held, before, until) {
  const sum = used + held;
  const counted = `${tokens(sum)} ${unitOf(l, sum)}${held > 0 ? ' used or held' : ''} ${NOW[l.window]}`;
  const whole = which(l), calls = whole.charAt(0).toLowerCase() + whole.slice(1);
  if (l.hard !== undefined && sum >= l.hard) return {text: `${counted}: ${calls} are refused ${sum >= before ? 'as before' : 'from now on'}${until}.`, drastic: sum < before};
  if (l.soft !== undefined && sum >= l.soft) return {text: `${counted}: ${calls} are allowed with a warning.`, drastic: false};
  return {text: `${sum >= before ? 'Calls are allowed again' : 'It refuses no call now'}: ${counted}, ${percent(sum / (l.hard ?? l.soft ?? 1))} of the ${l.hard === undefined ? 'soft' : 'hard'} cap.`, drastic: false};
}

/**
 * @param {Limit} l @param {string[]} values that have used up their cap, some of them @param {number} count how many have
 * @param {boolean} more or more than that @param {boolean} drastic some had not, by the cap before @param {string} until
 * @returns {Effect}
 */
function ofOver(l, values, count, more, drastic, until) {
  if (count === 0) return {text: `It refuses no call now: nothing has used that much ${NOW[l.window]}.`, drastic: false};
  const first = values.slice(0, NAMED).map((v) => valueName(/** @type {import('./api.js').Label} */ (l.per), v));
  const rest = count - first.length;
  const whose = named(rest > 0 ? [...first, `${tokens(rest)}${more ? ' or more' : ''} others`] : first);
  return {text: `Used up ${NOW[l.window]} by ${whose}: their calls are refused ${drastic ? 'from now on' : 'as before'}${until}.`, drastic};
}

/** What to remove a limit does. @param {Budget} b @param {string} name */
export function effectOfRemoval(b, name) {
  const l = b.limits.find((l) => l.name === name);
  return l && b.enabled && l.hard !== undefined && spent(tightest(l)) >= l.hard ? 'It refuses calls now: they are allowed again, as far as the budget goes.' : 'It binds no call from then on.';
}

/** Whether two limits count the same. @param {Limit} a @param {Limit} b */
function sameCount(a, b) {
  const key = (/** @type {Limit} */ l) => {
    const {match, per, window, unit, weights} = definition(l);
    return JSON.stringify([labels().map((d) => match?.[d] ?? ''), per ?? '', window, unit ?? 'tokens', Object.entries(weights ?? {}).sort()]);
  };
  return key(a) === key(b);
}
