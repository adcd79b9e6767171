/** Where things are on the page. */

/** @param {string} id */
export const portLink = (id) => `/?port=${encodeURIComponent(id)}`;

/** The table of ports. @param {{q?: string, sort?: string, state?: string}} filter */
export function tableLink(filter) {
  const query = new URLSearchParams(Object.entries(filter).filter(([, value]) => value !== '')).toString();
  return query ? `/ports?${query}` : '/ports';
}
