/** Limits, as the admin API has them. */

/**
 * @typedef {'feature' | 'provider' | 'model' | 'user_id' | 'run_id'} Label
 *
 * @typedef {object} Limit one of a budget, beside its caps
 * @property {string} name
 * @property {Partial<Record<Label, string>>} [match] a value, or a prefix and *
 * @property {Label} [per] absent: all calls together
 * @property {'hour' | 'day' | 'week' | 'month' | 'total'} window
 * @property {'tokens' | 'requests' | 'weighted'} [unit] absent: tokens
 * @property {Partial<Record<'input' | 'cache_read' | 'cache_write' | 'output', number>>} [weights]
 * @property {number} [soft]
 * @property {number} [hard]
 * @property {(string | number)[]} [alert_at] '80%' of the hard cap, or a number in the unit
 *
 * @typedef {object} Counted what a limit counts in its present window
 * @property {number | null} used null with per
 * @property {number | null} held by calls under way; null with per
 * @property {number | null} values how many there are; null without per
 * @property {number | null} remaining until the hard cap, after what is held; null with per, and without one
 * @property {{value: string, used: number, held: number, remaining: number | null}[] | null} top those of which most is used and held
 * @property {string | null} resets_at null: never
 *
 * @typedef {object} LimitSimulation
 * @property {number} calls that the limit matches
 * @property {number} used of those admitted, in the unit
 * @property {number} refused of those refused
 * @property {number} refused_calls
 * @property {string | null} first_refused_at
 * @property {number} warned_calls
 * @property {string | null} first_warned_at
 * @property {number | null} values null without per
 * @property {number | null} refused_values
 * @property {{value: string, refused_calls: number}[] | null} top those with most refused calls
 *
 * @typedef {{counters: {value: string, used: number, held: number}[], next: string}} LimitUsage those that have used most first
 *
 * @typedef {Counted & {reached: number | null}} LimitNow what a limit would count if it was stored; reached: how many values have come to its hard cap
 */

export {};
