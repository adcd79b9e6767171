/**
 * Numbers, times and caps, as people read and type them. Everything a person reads
 * is in the browser's own locale; periods are in UTC, because budgets are.
 */

/** The largest cap there is: the largest integer every JSON reader keeps exactly. */
export const MAX_CAP = Number.MAX_SAFE_INTEGER;

const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, {notation: 'compact', maximumFractionDigits: 1});
const share = new Intl.NumberFormat(undefined, {style: 'percent', maximumFractionDigits: 0});
const fineShare = new Intl.NumberFormat(undefined, {style: 'percent', maximumFractionDigits: 1});

/** @param {number} n */
export const tokens = (n) => whole.format(n);

/** 1,234,567 as 1.2M. @param {number} n */
export const compact = (n) => short.format(n);

/** @param {number} ratio */
export function percent(ratio) {
  if (ratio > 0 && ratio < 0.01) return '<' + share.format(0.01);
  return (ratio > 0.99 && ratio < 1 ? fineShare : share).format(Math.floor(ratio * 1000) / 1000);
}

/** @param {number} n @param {'day' | 'hour' | 'minute' | 'second'} unit */
const inUnit = (n, unit) => new Intl.NumberFormat(undefined, {style: 'unit', unit, unitDisplay: 'narrow'}).format(n);

/**
 * The two largest units: "6d 8h", "14m 5s".
 * @param {number} ms
 */
export function duration(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d > 0) return `${inUnit(d, 'day')} ${inUnit(h, 'hour')}`;
  if (h > 0) return `${inUnit(h, 'hour')} ${inUnit(m, 'minute')}`;
  if (m > 0) return `${inUnit(m, 'minute')} ${inUnit(s % 60, 'second')}`;
  return inUnit(s, 'second');
}

/** @param {Date} d @param {Intl.DateTimeFormatOptions} options */
const inUTC = (d, options) => new Intl.DateTimeFormat(undefined, {timeZone: 'UTC', ...options}).format(d);

/** "1 Dec, 00:00 UTC". @param {Date} d */
export const utcMoment = (d) => `${inUTC(d, {day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23'})} UTC`;

/** "30 Nov". @param {Date} d */
export const utcDay = (d) => inUTC(d, {day: 'numeric', month: 'short'});

/** "Monday, 23 November". @param {Date} d */
export const utcLongDay = (d) => inUTC(d, {weekday: 'long', day: 'numeric', month: 'long'});

/** "Mon". @param {Date} d */
export const utcWeekday = (d) => inUTC(d, {weekday: 'short'});

/** "Monday". @param {Date} d */
export const utcLongWeekday = (d) => inUTC(d, {weekday: 'long'});

/** "23", the day of the month. @param {Date} d */
export const utcDate = (d) => inUTC(d, {day: 'numeric'});

/** "14:05". @param {Date} d */
export const utcTime = (d) => inUTC(d, {hour: '2-digit', minute: '2-digit', hourCycle: 'h23'});

/** "November". @param {Date} d */
export const utcMonth = (d) => inUTC(d, {month: 'long'});

/** Local date and time, for things people did. @param {Date} d */
export const localMoment = (d) => new Intl.DateTimeFormat(undefined, {dateStyle: 'medium', timeStyle: 'short'}).format(d);

/** "15:30:06", local. @param {Date} d */
export const localTime = (d) => new Intl.DateTimeFormat(undefined, {timeStyle: 'medium'}).format(d);

/** "1st", "22nd". @param {number} n */
export function ordinal(n) {
  const suffix = {one: 'st', two: 'nd', few: 'rd', other: 'th'};
  return n + suffix[/** @type {keyof typeof suffix} */ (new Intl.PluralRules('en', {type: 'ordinal'}).select(n))];
}

/** "must be whole" as "Must be whole." @param {string} text */
export function sentence(text) {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?:]$/.test(capital) || capital === '' ? capital : capital + '.';
}

const MAGNITUDES = /** @type {Record<string, number>} */ ({'': 1, k: 1e3, m: 1e6, g: 1e9, b: 1e9, t: 1e12});

/** The characters this locale puts between thousands and before decimals. */
function separators() {
  const parts = whole.formatToParts(-1234567.8).concat(new Intl.NumberFormat().formatToParts(0.5));
  const find = (/** @type {string} */ type) => parts.find((p) => p.type === type)?.value;
  return {group: find('group') ?? ',', decimal: find('decimal') ?? '.'};
}

/**
 * Reads a cap as people type it: `1.5M`, `200k`, `1,500,000`, `1 500 000`, in the
 * browser's locale or in plain English. Empty is no cap.
 * @param {string} text
 * @returns {{value: number | null} | {problem: string}}
 */
export function parseTokens(text) {
  const typed = text.trim().replace(/\s*tokens?$/i, '').replace(/[\s_'’\u00a0\u202f]/g, '');
  if (typed === '') return {value: null};
  const match = /^([\d.,٫٬]+)([kmgbt]?)$/i.exec(typed);
  if (!match) return {problem: typed.startsWith('-') ? 'must not be negative' : 'is not a number of tokens: try 1.5M, 200k or 1,500,000'};
  const digits = plainDecimal(match[1]);
  if (digits === null) return {problem: 'is not a number of tokens: try 1.5M, 200k or 1,500,000'};
  const exact = scale(digits, MAGNITUDES[match[2].toLowerCase()]);
  if (exact === null) return {problem: 'must be a whole number of tokens'};
  if (exact > MAX_CAP) return {problem: `must be at most ${tokens(MAX_CAP)}`};
  return {value: exact};
}

/**
 * "1,500,000", "1.500.000" or "1.5" as digits with at most one point. A separator
 * that stands once before exactly three digits is ambiguous; then the locale decides.
 * @param {string} s
 */
function plainDecimal(s) {
  const marks = [...s.matchAll(/[.,٫٬]/g)].map((m) => m[0]);
  const kinds = new Set(marks);
  if (kinds.size === 0) return s;
  if (kinds.size > 2) return null;
  const last = marks[marks.length - 1];
  let decimal = '';
  if (kinds.size === 2) {
    if (marks.filter((m) => m === last).length > 1) return null;
    decimal = last;
  } else if (marks.length === 1) {
    const grouped = /^\d{1,3}\D\d{3}$/.test(s) && last !== separators().decimal;
    decimal = grouped ? '' : last;
  }
  const [integer, fraction = ''] = decimal === '' ? [s] : [s.slice(0, s.lastIndexOf(decimal)), s.slice(s.lastIndexOf(decimal) + 1)];
  if (!/^\d+$/.test(integer) && !/^\d{1,3}([.,٫٬]\d{3})+$/.test(integer)) return null;
  if (decimal !== '' && !/^\d+$/.test(fraction)) return null;
  return integer.replace(/\D/g, '') + (fraction === '' ? '' : '.' + fraction);
}

/**
 * Multiplies a decimal string, exactly. Null when the result is no integer.
 * @param {string} digits @param {number} by a power of ten
 */
function scale(digits, by) {
  const [integer, fraction = ''] = digits.split('.');
  const zeros = Math.log10(by);
  const kept = fraction.slice(0, zeros).padEnd(zeros, '0');
  if (/[1-9]/.test(fraction.slice(zeros))) return null;
  return Number(integer + kept);
}
