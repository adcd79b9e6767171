import {h, say} from './dom.js';

/**
 * What to do when there is nothing to see yet: a command to copy.
 * @param {string} id of the title
 * @param {string} title @param {string} text @param {string} command
 * @param {'h2' | 'h3'} [heading]
 */
export function firstStep(id, title, text, command, heading = 'h3') {
  const code = h('code', {text: command});
  const done = h('span', {class: 'copied', role: 'status'});
  const copy = h('button', {type: 'button', class: 'quiet', text: 'Copy', 'aria-label': 'Copy the command', onclick: async () => {
    try {
      await navigator.clipboard.writeText(command);
      say(done, 'Copied');
    } catch { // not allowed, or not over a secure address: select it instead
      getSelection()?.selectAllChildren(code);
      say(done, 'Selected: copy it with your keyboard');
    }
    setTimeout(() => say(done, ''), 4000);
  }});
  return [
    h(heading, {id, text: title}),
    h('p', {text}),
    h('div', {class: 'command'}, h('pre', {}, code), copy),
    done,
  ];
}

/**
 * Reports a first event, with nothing but what whoever runs this server has: it works as it
 * is printed, which TestFreshStart tries.
 * @param {string} port @param {string} [origin] of this server
 */
export const publishCommand = (port, origin = location.origin) =>
  `curl ${origin}/v1/usage -H "Authorization: Bearer $(tidegate token create first-call --permission usage.report --port ${port} --expires 1h)" --json '{"feature":"summary","provider":"anthropic","model":"claude-sonnet-4-5","input_tokens":1200,"output_tokens":300}'`;
