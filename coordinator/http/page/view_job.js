// One job: where it stands, its curves, what it says, what happened, what it made.
import {call} from './api.js';
import {copyButton} from './clipboard.js';
import {announce, empty, h, renew, setText, skeleton} from './dom.js';
import * as format from './format.js';
import {actionsOf} from './job_actions.js';
import {curvesOf} from './job_curves.js';
import {adapterOf, commandsOf, eventsOf, samplesOf, specOf} from './job_parts.js';
import {ageNode, progressOf, setAge, stateSentence, whyOf} from './parts.js';
import {hasEnded, jobBadge} from './states.js';

/** States in which a job has devices. */
const HELD = ['STARTING', 'RUNNING', 'PREEMPTING', 'PAUSING', 'CANCELLING'];

function fact(word) {
  const value = h('dd', {}, '–');
  return {node: h('div', {}, h('dt', {}, word), value), value};
}

/** {node, update(job), refresh(job)}: the figures at the top. */
function factsOf() {
  const words = ['Training loss', 'Validation loss', 'Time', 'Base', 'Data', 'Runs on', 'Attempt', 'Created', 'Tenant'];
  const facts = words.map(fact);
  const [train, validation, time, base, data, place, attempt, created, tenant] = facts;
  tenant.node.dataset.needs = 'admin';
  const age = ageNode('');
  created.value.replaceChildren(age);
  const node = h('dl', {class: 'facts card pad'}, facts.map((one) => one.node));
  const update = (job) => {
    setText(train.value, format.loss(format.number(job.trainLoss)));
    const first = format.number(job.initialValidationLoss);
    const now = format.number(job.validationLoss);
    renew(validation.value, `${first} ${now}`, () => [h('span', {class: 'whole'}, (Number.isNaN(first) || first === now ? '' : `${format.loss(first)} → `) + format.loss(now)),
      first > 0 && now !== first && !Number.isNaN(now) ? h('div', {class: 'fine'}, `${now < first ? '−' : '+'}${Math.abs(Math.round(100 * (now / first - 1)))} %`) : null]);
    const end = job.endTime ? Date.parse(job.endTime) : Date.now();
    const seconds = job.startTime ? (end - Date.parse(job.startTime)) / 1000 : NaN;
    setText(time.value, Number.isNaN(seconds) ? 'not started' : format.duration(seconds));
    renew(base.value, job.baseHash, () => [job.spec?.base ?? '–', h('div', {class: 'fine', title: job.baseHash}, format.brief(format.idOf(job.baseHash)))]);
    setText(attempt.value, format.count(job.attempt));
    setAge(age, job.createTime);
    setText(tenant.value, format.idOf(job.tenant));
    place.node.hidden = !HELD.includes(job.state);
  };
  let named = false;
  let asked = '';
  const refresh = async (job) => {
    if (!named) {
      const {train: rows, validation: held} = job.spec?.dataset ?? {};
      const files = await Promise.all([rows, held].filter(Boolean).map(nameOfData));
      data.value.replaceChildren(...files.map((file) => h('div', {}, file)));
      named = true;
    }
    // Asked again when it is placed anew.
    const placed = `${job.state} ${job.attempt}`;
    if (place.node.hidden || (placed === asked && place.value.textContent !== '–')) return;
    asked = placed;
    setText(place.value, await placeOf(job.name));
  };
  return {node, update, refresh};
}

/** The file's name of a data set; its id once it is deleted. */
async function nameOfData(name) {
  try {
    return (await call('DatasetService/GetDataset', {name})).displayName;
  } catch (error) {
    if (error.code !== 'not_found') throw error;
    return `${format.idOf(name)}, deleted`;
  }
}

/** "2 ranks on gpu-1, gpu-2". */
async function placeOf(job) {
  const [{groups = []}, {workers = []}] = await Promise.all([
    call('FleetService/ListGroups', {pageSize: 1000}), call('FleetService/ListWorkers', {pageSize: 1000})]);
  const ranks = groups.find((group) => group.job === job)?.ranks ?? [];
  if (ranks.length === 0) return '–';
  const names = new Map(workers.map((worker) => [worker.name, worker.displayName]));
  const hosts = [...new Set(ranks.map((rank) => names.get(rank.worker) || format.idOf(rank.worker)))];
  return `${ranks.length} ${ranks.length === 1 ? 'rank' : 'ranks'} on ${hosts.slice(0, 3).join(', ')}${hosts.length > 3 ? ` and ${hosts.length - 3} more` : ''}`;
}

function headOf(id, onDone) {
  const title = h('h1', {}, '…');
  const badge = jobBadge();
  const progress = progressOf();
  const actions = actionsOf(onDone);
  const chips = h('div', {class: 'chips'});
  const note = h('div');
  const node = h('header', {},
    h('p', {class: 'crumb'}, h('a', {href: '#/jobs'}, 'Jobs'), ' / ', h('span', {}, id), ' ',
      copyButton('Copy', () => id, {label: 'Copy the job’s id', kind: 'quiet small'})),
    h('div', {class: 'head'}, h('div', {class: 'head-text'}, h('div', {class: 'title-line'}, title, badge.node), chips), actions.node),
    note, h('div', {class: 'overall'}, progress.node));
  const update = (job) => {
    setText(title, job.displayName || id);
    badge.update(job.state);
    progress.update(job);
    actions.update(job);
    const labels = Object.entries(job.labels ?? {}).map(([key, value]) => `${key}: ${value}`);
    renew(chips, labels.join('\n'), () => labels.map((text) => h('span', {class: 'chip'}, text)));
    const why = whyOf(job);
    renew(note, job.state + why, () => (why ? h('p', {class: job.state === 'FAILED' ? 'note bad' : 'note wait'},
      h('span', {}, job.state === 'FAILED' ? h('strong', {}, `${format.snake(job.failure?.code ?? 'Failed').replaceAll('_', ' ')}: `) : null, why)) : null));
  };
  return {node, update, actions};
}

export function openJob(id, ask) {
  const name = `jobs/${id}`;
  const head = headOf(id, () => ask());
  const facts = factsOf();
  const curves = curvesOf(name);
  const samples = samplesOf();
  const events = eventsOf(name);
  const adapter = adapterOf(name);
  const commands = commandsOf();
  const spec = specOf();
  const body = h('div', {hidden: true}, head.node, h('div', {class: 'columns'},
    h('div', {}, facts.node, curves.node, samples.node),
    h('div', {}, adapter.node, commands.node, events.node, spec.node)));
  const loading = h('div', {class: 'card'}, h('h1', {class: 'sr'}, `Job ${id}`), skeleton(8));
  const node = h('div', {}, loading, body);

  let shown = null;
  let complete = false;
  let title = `Job ${id}`;
  const render = (job) => {
    loading.remove();
    body.hidden = false;
    title = job.displayName || id;
    for (const part of [head, facts, samples, adapter, commands, spec]) part.update(job);
    if (shown && shown.state !== job.state) announce(stateSentence(job));
    shown = job;
  };
  const refresh = async () => {
    const job = await call('JobService/GetJob', {name});
    // What belongs to a job that has ended does not change any more.
    if (job === shown && complete) return;
    render(job);
    await Promise.all([curves.refresh(), events.refresh(), adapter.refresh(), facts.refresh(job)]);
    complete = hasEnded(job.state);
  };
  const fail = (error) => {
    if (error.code !== 'not_found' && error.code !== 'invalid_argument') return false;
    node.replaceChildren(h('h1', {class: 'sr'}, 'No such job'), empty('No such job', `${name} does not exist, or it was deleted.`),
      h('p', {class: 'empty'}, h('a', {href: '#/jobs'}, 'All jobs')));
    return true;
  };
  return {node, title, refresh, fail, currentTitle: () => title, onCaller: () => shown && head.actions.update(shown)};
}
