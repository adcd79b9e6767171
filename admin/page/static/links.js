/** Where things are on the page. */

/** What one sees of a port at first, which an address need not say. @type {Record<string, string>} */
const AT_FIRST = {range: 'current', by: 'feature', step: ''};

/** A port, and what is looked at. @param {string} id @param {Partial<import('./usage.js').View>} [view] */
export function portLink(id, view = {}) {
  const more = Object.entries(view).filter(([name, value]) => value !== '' && value !== AT_FIRST[name]);
  return `/?port=${encodeURIComponent(id)}${more.map(([name, value]) => `&${name}=${encodeURIComponent(value)}`).join('')}`;
}

/** What an address says to look at. @param {string} search @returns {import('./usage.js').View} */
export function viewIn(search) {
  const query = new URLSearchParams(search);
  return {range: query.get('range') ?? AT_FIRST.range, by: query.get('by') ?? AT_FIRST.by, step: query.get('step') ?? AT_FIRST.step};
}

/** The table of ports. @param {{q?: string, sort?: string, state?: string}} filter */
export function tableLink(filter) {
  const query = new URLSearchParams(Object.entries(filter).filter(([, value]) => value !== '')).toString();
  return query ? `/ports?${query}` : '/ports';
}
