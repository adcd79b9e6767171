/** Changes, as the audit log has them. */

/**
 * @typedef {object} Deed
 * @property {number} id
 * @property {number} version
 * @property {string} changed_at
 * @property {string} changed_by
 *
 * @typedef {import('./api.js').Settings & {limits?: import('./api.js').Limit[], default?: boolean}} Value a budget
 * @typedef {Deed & {key: 'ai.budget' | 'port.deleted', old_value: Value | null, new_value: Value | null}} BudgetChange
 * @typedef {Deed & {key: 'port.named', old_value: {name: string}, new_value: {name: string}}} NameChange
 */

export {};
