// What waits, in the order in which it is served, and for what. Only the page that is shown is asked for.
import {call} from './api.js';
import {empty, h, keyed, setText, skeleton} from './dom.js';
import * as format from './format.js';
import {Pager} from './pager.js';
import {ageNode, jobLink, setAge} from './parts.js';

const PAGE = 50;
const QUEUED = 'state = QUEUED';

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

/** The position of the job that is served last; 0 where nothing waits. */
async function lengthOfQueue() {
  const page = await call('JobService/ListJobs', {pageSize: 1, filter: QUEUED});
  return Number(page.jobs?.[0]?.waiting?.position ?? 0);
}

export function openQueue() {
  const lead = h('p', {class: 'lead'}, 'Jobs are served in this order; one that no connected worker could serve keeps nobody waiting.');
  const length = h('p', {class: 'lead'});
  const body = h('tbody');
  const words = [['num', 'Position'], ['', 'Job'], ['', 'Why it waits'], ['num', 'Devices'], ['num', 'Estimate'], ['num', 'Since']];
  const table = h('table', {class: 'cards'}, h('caption', {class: 'sr'}, 'Jobs that wait'),
    h('thead', {}, h('tr', {}, words.map(([kind, word]) => h('th', {class: kind, scope: 'col'}, word)))), body);
  const card = h('div', {class: 'card'}, skeleton(6));
  const pager = new Pager({size: PAGE, words: ['Sooner', 'Later'], onTurn: () => refresh().catch(() => {})});
  const node = h('div', {}, h('div', {class: 'head'}, h('div', {class: 'head-text'}, h('h1', {}, 'Queue'), lead, length)), card, pager.node);
  const refresh = async () => {
    const page = await pager.ask((fields) => call('JobService/ListJobs', {...fields, filter: QUEUED, orderBy: 'create_time'}));
    if (!page) return;
    const jobs = page.jobs ?? [];
    // The page that was shown has started meanwhile.
    if (jobs.length === 0 && pager.token) {
      pager.reset();
      return refresh();
    }
    if (jobs.length === 0) {
      card.replaceChildren(empty('Nothing waits', 'Every job has the devices that it wants, or has ended.'));
    } else if (card.firstChild !== table) {
      card.replaceChildren(table);
    }
    keyed(body, jobs, (job) => job.name, rowOf);
    pager.update(jobs.length, page.nextPageToken);
    const last = page.nextPageToken || pager.token ? await lengthOfQueue() : 0;
    setText(length, last ? `The last of them is No. ${format.count(last)}.` : '');
  };
  return {node, title: 'Queue', refresh, everyMs: 4000};
}
