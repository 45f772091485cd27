// Small parts that several views have: times that age, progress, links.
import {h, setAttributes, setText} from './dom.js';
import * as format from './format.js';
import {classOf, hasEnded, wordOf} from './states.js';

/** A <time> that says how long ago it was; refreshAges() keeps it true. */
export function ageNode(time) {
  const node = h('time');
  setAge(node, time);
  return node;
}

export function setAge(node, time) {
  if (!time) {
    node.removeAttribute('datetime');
    setText(node, '–');
    return;
  }
  setAttributes(node, {datetime: time, title: new Date(time).toLocaleString(), 'data-age': 'yes'});
  setText(node, format.age(time));
}

export function refreshAges(root) {
  for (const node of root.querySelectorAll('time[data-age]')) setText(node, format.age(node.getAttribute('datetime')));
}

/** {node, update(job)}: a bar, steps and the time left. */
export function progressOf() {
  const bar = h('progress', {max: 1, value: 0});
  const steps = h('span');
  const left = h('span');
  const node = h('div', {class: 'steps'}, bar, h('div', {class: 'steps-line'}, steps, left));
  const update = (job) => {
    const step = Number(job.step ?? 0);
    const total = Number(job.totalSteps ?? 0);
    const share = total > 0 ? step / total : 0;
    setAttributes(bar, {value: share, class: classOf(job.state),
      'aria-label': `${job.displayName}: ${Math.floor(100 * share)} percent of the steps`});
    setText(steps, total > 0 ? `${format.count(step)} / ${format.count(total)} steps` : '–');
    const seconds = format.seconds(job.timeLeft);
    setText(left, !hasEnded(job.state) && Number.isFinite(seconds) ? `${format.duration(seconds)} left` : '');
  };
  return {node, update};
}

/** One sentence on why the job stands where it stands; '' where its state says it all. */
export function whyOf(job) {
  if (job.state === 'FAILED') return job.failure?.message || 'No reason was given';
  if (job.state === 'QUEUED' && job.waiting) {
    const place = job.waiting.position ? `No. ${job.waiting.position} in the queue: ` : '';
    return place + (job.waiting.reason || 'waits for devices');
  }
  if (job.state === 'PAUSED') return job.pausedBy === 'SYSTEM' ? 'Paused by the system; its last event says why' : '';
  const wanted = {PAUSE: 'is asked to pause', CANCEL: 'is asked to stop'}[job.desiredState];
  return wanted && !hasEnded(job.state) && !['PAUSING', 'CANCELLING'].includes(job.state) ? `It ${wanted}` : '';
}

/** The job's link by its name. */
export function jobLink(name, text) {
  return h('a', {href: `#/jobs/${format.idOf(name)}`, class: 'name'}, text || format.idOf(name));
}

/** A sentence for announcements. */
export function stateSentence(job) {
  return `${job.displayName}: ${wordOf(job.state).toLowerCase()}`;
}
