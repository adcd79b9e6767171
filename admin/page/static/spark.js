import {svg} from './dom.js';
import {tokens} from './format.js';

const STEP = 6;
const HEIGHT = 20;

/** Some days as small bars, each against the largest. @param {number[]} days */
export function spark(days) {
  const most = Math.max(...days, 1);
  const all = days.reduce((sum, n) => sum + n, 0);
  return svg('svg', {class: 'spark', role: 'img', 'aria-label': `${tokens(all)} tokens in ${days.length} days`, width: days.length * STEP, height: HEIGHT, viewBox: `0 0 ${days.length * STEP} ${HEIGHT}`},
    ...days.map((n, i) => {
      const tall = n === 0 ? 1 : Math.max(2, Math.round((n / most) * HEIGHT));
      return svg('rect', {class: n === 0 ? 'nothing' : '', x: i * STEP, y: HEIGHT - tall, width: STEP - 2, height: tall});
    }));
}
