// The list of jobs: filtered and paged by the service, a row for each job that stays while it changes.
import {call} from './api.js';
import {announce, empty, h, keyed, renew, rowsOf, setAttributes, setText, skeleton} from './dom.js';
import * as format from './format.js';
import {Pager} from './pager.js';
import {ageNode, jobLink, progressOf, setAge, stateSentence, whyOf} from './parts.js';
import {jobBadge} from './states.js';

const PAGE = 50;
const MOST_COMPARED = 8;
const ENDED = ['SUCCEEDED', 'FAILED', 'CANCELLED'];
/** key -> [word, filter]. */
const TABS = {
  all: ['All', ''],
  active: ['Active', ENDED.map((state) => `state != ${state}`).join(' AND ')],
  queued: ['Queued', 'state = QUEUED'],
  running: ['Running', 'state = RUNNING'],
  paused: ['Paused', 'state = PAUSED'],
  succeeded: ['Succeeded', 'state = SUCCEEDED'],
  failed: ['Failed', 'state = FAILED'],
  cancelled: ['Cancelled', 'state = CANCELLED'],
};

/** name -> display name of the jobs to compare; it outlives pages and filters. */
const picked = new Map();

function addressOf(state, text) {
  const query = new URLSearchParams();
  if (state !== 'all') query.set('state', state);
  if (text) query.set('q', text);
  const asText = query.toString();
  return `#/jobs${asText ? `?${asText}` : ''}`;
}

function quote(text) {
  return `"${text.replace(/[\\"]/g, '\\$&')}"`;
}

/** What begins as a term of the API's filter is one; all else is a part of the name. */
function filterOf(state, text) {
  const terms = [TABS[state][1]];
  if (/^(state|display_name|base|tenant|labels\.[\w.-]+)\s*(=|!=|:)/.test(text)) terms.push(text);
  else if (text) terms.push(`display_name : ${quote(text)}`);
  return terms.filter(Boolean).join(' AND ');
}

function lossOf(job) {
  const train = format.number(job.trainLoss);
  const validation = format.number(job.validationLoss);
  return [format.loss(train), Number.isNaN(validation) ? '' : `val ${format.loss(validation)}`];
}

/** {node, update(job)}: one row of the table. */
function rowOf(job, onPick) {
  const box = h('input', {type: 'checkbox'});
  const link = jobLink(job.name, '');
  // Whose it is tells something only to those who see those of all.
  const origin = h('div', {class: 'fine'}, job.spec?.base ?? '', h('span', {'data-needs': 'admin'}, ` · ${format.idOf(job.tenant)}`));
  const chips = h('div', {class: 'chips'});
  const badge = jobBadge();
  const why = h('div', {class: 'why'});
  const progress = progressOf();
  const train = h('span');
  const validation = h('div', {class: 'fine'});
  const made = ageNode('');
  const node = h('tr', {},
    h('td', {class: 'pick'}, box),
    h('th', {class: 'what', scope: 'row'}, link, origin, chips),
    h('td', {'data-label': 'State'}, h('div', {}, badge.node, why)),
    h('td', {'data-label': 'Progress'}, progress.node),
    h('td', {class: 'num', 'data-label': 'Loss'}, h('div', {}, train, validation)),
    h('td', {class: 'num soft', 'data-label': 'Created'}, made));
  box.addEventListener('change', () => onPick(job, box.checked));
  let shown;
  let state = job.state;
  const update = (now) => {
    box.checked = picked.has(now.name);
    if (now === shown) return;
    shown = now;
    setAttributes(box, {'aria-label': `Select ${now.displayName} for comparison`});
    setText(link, now.displayName || format.idOf(now.name));
    const labels = Object.entries(now.labels ?? {}).slice(0, 4);
    renew(chips, JSON.stringify(labels), () => labels.map(([key, value]) => h('a', {class: 'chip', title: `Jobs with ${key}: ${value}`,
      href: addressOf('all', `labels.${key} = ${quote(value)}`)}, `${key}: ${value}`)));
    badge.update(now.state);
    setText(why, whyOf(now));
    why.className = now.state === 'FAILED' ? 'why bad' : 'why';
    progress.update(now);
    const [trainText, validationText] = lossOf(now);
    setText(train, trainText);
    setText(validation, validationText);
    setAge(made, now.createTime);
    if (now.state !== state) announce(stateSentence(now));
    state = now.state;
  };
  return {node, update};
}

function compareBar() {
  const button = h('button', {type: 'button', class: 'primary small'});
  const clear = h('button', {type: 'button', class: 'quiet small'}, 'Clear selection');
  const node = h('div', {class: 'picked'}, button, clear);
  const update = () => {
    const n = picked.size;
    setText(button, n === 0 ? 'Compare' : `Compare ${n} ${n === 1 ? 'job' : 'jobs'}`);
    button.disabled = n < 2;
    button.title = n < 2 ? 'Select two jobs or more' : '';
    clear.hidden = n === 0;
  };
  button.addEventListener('click', () => {
    location.hash = `#/compare?jobs=${[...picked.keys()].map(format.idOf).join(',')}`;
  });
  update();
  return {node, update, clear};
}

function searchField(state, text) {
  const field = h('input', {type: 'search', class: 'search', 'aria-label': 'Filter by a part of the name, or by terms such as labels.team = "search" AND base = tiny-tales',
    placeholder: 'Name, or labels.team = x', 'aria-describedby': 'filter-fault', value: text, maxlength: 1000});
  let timer = 0;
  field.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      // Without a new view the field keeps its focus.
      history.replaceState(null, '', addressOf(state, field.value.trim()));
      field.dispatchEvent(new CustomEvent('filter'));
    }, 250);
  });
  return field;
}

function tableOf() {
  const body = h('tbody');
  const head = [['pick', 'Select', true], ['', 'Name'], ['', 'State'], ['', 'Progress'], ['num', 'Loss'], ['num', 'Created']];
  const table = h('table', {class: 'jobs cards'},
    h('caption', {class: 'sr'}, 'Jobs, newest first'),
    h('thead', {}, h('tr', {}, head.map(([kind, word, hidden]) =>
      h('th', {class: kind, scope: 'col'}, hidden ? h('span', {class: 'sr'}, word) : word)))), body);
  return {table, body};
}

/** What stands instead of rows. */
function nothing(state, text) {
  if (text || state !== 'all') return empty('No such job', 'No job fits the filter.');
  return empty('No jobs yet', 'A job appears here as soon as it is submitted.', 'tundra submit job.yaml --follow');
}

export function openJobs(query) {
  const state = TABS[query.get('state')] ? query.get('state') : 'all';
  const search = searchField(state, query.get('q') ?? '');
  const compare = compareBar();
  const tabs = h('nav', {class: 'tabs', 'aria-label': 'Jobs by state'}, Object.entries(TABS).map(([key, [word]]) =>
    h('a', {href: addressOf(key, search.value), 'aria-current': key === state ? 'page' : null}, word)));
  const {table, body} = tableOf();
  const card = h('div', {class: 'card'}, skeleton(8));
  const pager = new Pager({size: PAGE, onTurn: () => refresh().catch(() => {})});
  const fault = h('p', {class: 'bad-text fault', id: 'filter-fault', role: 'alert'});
  const node = h('div', {},
    h('div', {class: 'head'}, h('div', {class: 'head-text'}, h('h1', {}, 'Jobs')), compare.node),
    h('div', {class: 'bar-row'}, tabs, h('span', {class: 'grow'}), search), fault, card,
    pager.node);

  let last = null;
  const onPick = (job, on) => {
    if (on) picked.set(job.name, job.displayName);
    else picked.delete(job.name);
    if (picked.size > MOST_COMPARED) {
      picked.delete(job.name);
      announce(`At most ${MOST_COMPARED} jobs can be compared`);
      last.jobs.forEach((one) => rowsOf(body).get(one.name)?.update(one));
    }
    compare.update();
  };
  const render = (page) => {
    const jobs = page.jobs ?? [];
    const wanted = jobs.length ? table : nothing(state, search.value);
    if (jobs.length === 0 || card.firstChild !== wanted) card.replaceChildren(wanted);
    keyed(body, jobs, (job) => job.name, (job) => rowOf(job, onPick));
    pager.update(jobs.length, page.nextPageToken);
    if (!last) requestAnimationFrame(() => performance.mark('first-rows'));
    last = page;
  };
  const refresh = async () => {
    const filter = filterOf(state, search.value.trim());
    const page = await pager.ask((fields) => call('JobService/ListJobs', {...fields, ...(filter ? {filter} : {})}));
    // An answer to a question that is not asked any more.
    if (!page || filter !== filterOf(state, search.value.trim())) return;
    setText(fault, '');
    search.removeAttribute('aria-invalid');
    if (page !== last) render(page);
  };
  const fail = (error) => {
    if (!error.fields?.includes('filter')) return false;
    setText(fault, error.message);
    search.setAttribute('aria-invalid', 'true');
    if (!last) card.replaceChildren(nothing(state, search.value));
    return true;
  };
  search.addEventListener('filter', () => {
    pager.reset();
    for (const [i, tab] of [...tabs.children].entries()) tab.setAttribute('href', addressOf(Object.keys(TABS)[i], search.value.trim()));
    refresh().then(() => announce(`${last?.jobs?.length ?? 0} jobs`), fail);
  });
  compare.clear.addEventListener('click', () => {
    picked.clear();
    compare.update();
    if (last) (last.jobs ?? []).forEach((one) => rowsOf(body).get(one.name)?.update(one));
  });
  return {node, title: 'Jobs', refresh, fail};
}
