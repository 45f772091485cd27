// What waits, in the order in which it is served, and for what.
import {call} from './api.js';
import {empty, h, keyed, setText, skeleton} from './dom.js';
import * as format from './format.js';
import {ageNode, jobLink, setAge} from './parts.js';

const MOST_SHOWN = 200;

function devicesOf(resources = {}) {
  if (resources.deviceCount) return format.count(resources.deviceCount);
  if (resources.deviceRange) return `${resources.deviceRange.min}–${resources.deviceRange.max}`;
  return 'any';
}

function rowOf(job) {
  const place = h('td', {class: 'num', 'data-label': 'Position'});
  const reason = h('span');
  const estimate = h('td', {class: 'num soft', 'data-label': 'Estimate'});
  const made = ageNode('');
  const node = h('tr', {}, place,
    h('th', {scope: 'row'}, jobLink(job.name, job.displayName)),
    h('td', {'data-label': 'Why it waits'}, reason),
    h('td', {class: 'num', 'data-label': 'Devices'}, h('span', {}, devicesOf(job.spec?.resources))),
    estimate, h('td', {class: 'num soft', 'data-label': 'Since'}, made));
  const update = (now) => {
    setText(place, String(now.waiting?.position ?? '–'));
    setText(reason, now.waiting?.reason || 'waits for devices');
    const seconds = format.seconds(now.waiting?.estimate);
    setText(estimate, Number.isFinite(seconds) ? `in ${format.duration(seconds)}` : '–');
    setAge(made, now.createTime);
  };
  return {node, update};
}

/** All jobs that wait, first in the queue first. */
async function listQueued() {
  const jobs = [];
  let pageToken = '';
  do {
    const page = await call('JobService/ListJobs', {pageSize: 1000, filter: 'state = QUEUED', ...(pageToken ? {pageToken} : {})});
    jobs.push(...(page.jobs ?? []));
    pageToken = page.nextPageToken ?? '';
  } while (pageToken);
  const place = (job) => job.waiting?.position ?? Infinity;
  return jobs.reverse().sort((a, b) => place(a) - place(b));
}

export function openQueue() {
  const lead = h('p', {class: 'lead'}, 'Jobs are served in this order; one that no connected worker could serve keeps nobody waiting.');
  const body = h('tbody');
  const words = [['num', 'Position'], ['', 'Job'], ['', 'Why it waits'], ['num', 'Devices'], ['num', 'Estimate'], ['num', 'Since']];
  const table = h('table', {class: 'cards'}, h('caption', {class: 'sr'}, 'Jobs that wait'),
    h('thead', {}, h('tr', {}, words.map(([kind, word]) => h('th', {class: kind, scope: 'col'}, word)))), body);
  const card = h('div', {class: 'card'}, skeleton(6));
  const more = h('p', {class: 'fine pager'});
  const node = h('div', {}, h('div', {class: 'head'}, h('div', {class: 'head-text'}, h('h1', {}, 'Queue'), lead)), card, more);
  const refresh = async () => {
    const jobs = await listQueued();
    if (jobs.length === 0) {
      card.replaceChildren(empty('Nothing waits', 'Every job has the devices that it wants, or has ended.'));
    } else if (card.firstChild !== table) {
      card.replaceChildren(table);
    }
    keyed(body, jobs.slice(0, MOST_SHOWN), (job) => job.name, rowOf);
    setText(more, jobs.length > MOST_SHOWN ? `and ${format.count(jobs.length - MOST_SHOWN)} more` : '');
  };
  // With a long queue each answer is large.
  return {node, title: 'Queue', refresh, everyMs: 4000};
}
