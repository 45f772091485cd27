// The states of jobs and workers: words, colours and signs, so that no state is told by colour alone.
import {h, svg, setText} from './dom.js';

/** state -> [word, class]. */
const JOB = {
  QUEUED: ['Queued', 'queued'],
  STARTING: ['Starting', 'running'],
  RUNNING: ['Running', 'running'],
  PREEMPTING: ['Making room', 'queued'],
  PAUSING: ['Pausing', 'paused'],
  PAUSED: ['Paused', 'paused'],
  CANCELLING: ['Cancelling', 'ended'],
  SUCCEEDED: ['Succeeded', 'succeeded'],
  FAILED: ['Failed', 'failed'],
  CANCELLED: ['Cancelled', 'ended'],
};
const WORKER = {
  CONNECTED: ['Connected', 'succeeded'],
  DRAINING: ['Draining', 'queued'],
  AWAY: ['Away', 'failed'],
};

export function wordOf(state) {
  return (JOB[state] ?? [state || 'Unknown'])[0];
}

export function classOf(state) {
  return (JOB[state] ?? ['', 'ended'])[1];
}

export function hasEnded(state) {
  return state === 'SUCCEEDED' || state === 'FAILED' || state === 'CANCELLED';
}

const SIGNS = {
  queued: () => [svg('circle', {cx: 8, cy: 8, r: 6, fill: 'none', stroke: 'currentColor', 'stroke-width': 2}),
    svg('path', {d: 'M8 4.6V8l2.4 1.6', fill: 'none', stroke: 'currentColor', 'stroke-width': 1.6})],
  running: () => [svg('circle', {cx: 8, cy: 8, r: 6, fill: 'none', stroke: 'currentColor', 'stroke-width': 2, opacity: 0.3}),
    svg('path', {class: 'turn', d: 'M8 2a6 6 0 0 1 6 6', fill: 'none', stroke: 'currentColor', 'stroke-width': 2.4, 'stroke-linecap': 'round'})],
  succeeded: () => [svg('circle', {cx: 8, cy: 8, r: 7, fill: 'currentColor'}),
    svg('path', {d: 'm4.8 8.2 2.2 2.2 4.2-4.6', fill: 'none', stroke: 'var(--surface)', 'stroke-width': 1.8})],
  failed: () => [svg('path', {d: 'M8 1 15 14H1z', fill: 'currentColor'}),
    svg('path', {d: 'M8 5.4v4.2M8 11v1.4', stroke: 'var(--surface)', 'stroke-width': 1.7})],
  paused: () => [svg('path', {d: 'M5 3v10M11 3v10', stroke: 'currentColor', 'stroke-width': 3})],
  ended: () => [svg('circle', {cx: 8, cy: 8, r: 6, fill: 'none', stroke: 'currentColor', 'stroke-width': 2}),
    svg('path', {d: 'M4.5 8h7', stroke: 'currentColor', 'stroke-width': 2})],
};

function badge(table) {
  const word = h('span');
  const node = h('span', {class: 'state'}, word);
  let shown;
  const update = (state) => {
    if (state === shown) return;
    shown = state;
    const [text, kind] = table[state] ?? [state || 'Unknown', 'ended'];
    setText(word, text);
    node.className = `state ${kind}`;
    node.dataset.state = state;
    node.querySelector('svg')?.remove();
    node.prepend(svg('svg', {viewBox: '0 0 16 16', 'aria-hidden': 'true'}, SIGNS[kind]()));
  };
  return {node, update};
}

/** {node, update(state)} of a job's state. */
export const jobBadge = () => badge(JOB);
/** The same of a worker's. */
export const workerBadge = () => badge(WORKER);
