/** Periods, which are always UTC. */

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/**
 * The period that contains a moment, [start, end); a week starts on Monday.
 * @param {import('./api.js').Period | 'hour'} period @param {number} now
 * @returns {[number, number]}
 */
export function bounds(period, now) {
  if (period === 'hour') {
    const start = now - now % HOUR_MS;
    return [start, start + HOUR_MS];
  }
  const d = new Date(now);
  const [year, month, day] = [d.getUTCFullYear(), d.getUTCMonth(), d.getUTCDate()];
  if (period === 'month') return [Date.UTC(year, month, 1), Date.UTC(year, month + 1, 1)];
  const start = Date.UTC(year, month, period === 'week' ? day - (d.getUTCDay() + 6) % 7 : day);
  return [start, start + (period === 'week' ? 7 : 1) * DAY_MS];
}

/** The day of a moment, as 2026-11-23. @param {number} t */
export const isoDay = (t) => new Date(t).toISOString().slice(0, 10);
