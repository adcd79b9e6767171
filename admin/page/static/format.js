/**
 * Numbers, times and caps, as people read and type them. Everything a person reads
 * is in the browser's own locale, what they type into a field is not; all times are in
 * UTC, because budgets are. The page says so once.
 */

/** The largest cap there is: the largest integer every JSON reader keeps exactly. */
export const MAX_CAP = Number.MAX_SAFE_INTEGER;

const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, {notation: 'compact', maximumFractionDigits: 1});
const scaleMark = new Intl.NumberFormat(undefined, {notation: 'compact', maximumFractionDigits: 2});
const share = new Intl.NumberFormat(undefined, {style: 'percent', maximumFractionDigits: 0});
const fineShare = new Intl.NumberFormat(undefined, {style: 'percent', maximumFractionDigits: 1});

/** @param {number} n */
export const tokens = (n) => whole.format(n);

/** 1,234,567 as 1.2M. @param {number} n */
export const compact = (n) => short.format(n);

/** What a scale says: 1,250,000 as 1.25M. @param {number} n */
export const axis = (n) => scaleMark.format(n);

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

/** "1 Dec, 00:00". @param {Date} d */
export const utcMoment = (d) => inUTC(d, {day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23'});

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

/** "November 2026". @param {Date} d */
export const utcMonthYear = (d) => inUTC(d, {month: 'long', year: 'numeric'});

/** "1 Dec 2026, 15:30", for things people did. @param {Date} d */
export const utcDateTime = (d) => inUTC(d, {day: 'numeric', month: 'short', year: 'numeric', hour: '2-digit', minute: '2-digit', hourCycle: 'h23'});

/** "15:30:06". @param {Date} d */
export const utcClock = (d) => inUTC(d, {hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23'});

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

/**
 * A cap as an input shows it: 1,500,000, as {@link parseTokens} reads it, whatever the
 * locale.
 */
export const typed = (/** @type {number} */ n) => new Intl.NumberFormat('en').format(n);

const MAGNITUDES = /** @type {Record<string, number>} */ ({'': 1, k: 1e3, m: 1e6, g: 1e9, b: 1e9, t: 1e12});
const GROUPED = /^[1-9]\d{0,2}([,_'’\s]\d{3})+$/;
const NO_NUMBER = {problem: 'is not a number of tokens: try 1.5M, 200k or 1,500,000'};
const NO_GROUPS = {problem: 'has a comma or a space that groups no three digits: write 1.5M or 1,500,000'};

/**
 * Reads a number of tokens as people type it: `1.5M`, `200k`, `1,500,000`,
 * `1 500 000`, or `none`, which is null. A point is the decimal mark and a comma groups
 * three digits, in every locale: `1,5M` could mean one and a half million, or fifteen.
 * The command line has the same rules; testdata/tokens.json is the table of both.
 * @param {string} text
 * @returns {{value: number | null} | {problem: string}}
 */
export function parseTokens(text) {
  const number = text.trim().replace(/\s*tokens?$/i, '');
  if (/^none$/i.test(number)) return {value: null};
  if (number.startsWith('-')) return {problem: 'must not be negative'};
  const match = /^([\d.,_'’\s]+?)\s*([kmgbt]?)$/i.exec(number);
  if (!match || !/\d/.test(match[1])) return NO_NUMBER;
  const [integer, fraction, ...more] = match[1].split('.');
  if (more.length > 0 || integer === '' || fraction === '') return NO_NUMBER;
  if (!/^\d+$/.test(integer) && !GROUPED.test(integer) || !/^\d*$/.test(fraction ?? '')) return NO_GROUPS;
  const exact = scale(integer.replace(/\D/g, ''), fraction ?? '', MAGNITUDES[match[2].toLowerCase()]);
  if (exact === null) return {problem: 'must be a whole number of tokens'};
  if (exact > MAX_CAP) return {problem: `must be at most ${typed(MAX_CAP)}`};
  return {value: exact};
}

/**
 * Multiplies a decimal number, exactly. Null when the result is no integer.
 * @param {string} integer @param {string} fraction @param {number} by a power of ten
 */
function scale(integer, fraction, by) {
  const zeros = Math.log10(by);
  const kept = fraction.slice(0, zeros).padEnd(zeros, '0');
  if (/[1-9]/.test(fraction.slice(zeros))) return null;
  return Number(integer + kept);
}
