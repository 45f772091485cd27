// Several jobs in one set of charts, and the settings in which they differ.
import {call} from './api.js';
import {Chart} from './chart.js';
import {ChartGroup} from './chart_group.js';
import {empty, h, renew, setText, skeleton} from './dom.js';
import * as format from './format.js';
import {jobLink} from './parts.js';
import {Series} from './series.js';
import {wordOf} from './states.js';

const MOST = 8;
const CHARTS = [['validation', 'Validation loss'], ['train', 'Training loss'], ['rate', 'Learning rate'], ['norm', 'Gradient norm'], ['speed', 'Tokens per second']];

/** "lora.rank" -> value, of all settings. */
function flat(value, prefix = '', into = {}) {
  for (const [key, item] of Object.entries(value ?? {})) {
    const name = prefix + format.snake(key);
    if (item !== null && typeof item === 'object' && !Array.isArray(item)) flat(item, `${name}.`, into);
    else into[name] = Array.isArray(item) ? item.join(', ') : String(item);
  }
  return into;
}

/** Rows [setting, value of each job] where they differ. */
function differences(jobs) {
  const all = jobs.map((job) => flat(job.spec));
  const names = [...new Set(all.flatMap(Object.keys))].sort();
  return names.map((name) => [name, all.map((one) => one[name] ?? '–')]).filter(([, values]) => new Set(values).size > 1);
}

function legendOf(onChange) {
  const node = h('div', {class: 'legend', role: 'group', 'aria-label': 'Jobs shown'});
  const hidden = new Set();
  const update = (jobs) => renew(node, JSON.stringify(jobs.map((job) => [job.name, job.state, job.step, job.validationLoss, job.trainLoss])), () => jobs.map((job, i) => {
    const value = format.number(job.validationLoss ?? job.trainLoss);
    const button = h('button', {type: 'button', 'aria-pressed': String(!hidden.has(job.name))},
      h('span', {class: 'line'}, h('span', {class: `swatch s${i % MOST}`}), job.displayName),
      h('span', {class: 'fine'}, `${wordOf(job.state)}, step ${format.count(job.step)}, ${job.validationLoss === undefined ? 'loss' : 'val'} ${format.loss(value)}`));
    button.addEventListener('click', () => {
      if (!hidden.delete(job.name)) hidden.add(job.name);
      button.setAttribute('aria-pressed', String(!hidden.has(job.name)));
      onChange();
    });
    return button;
  }));
  return {node, update, isShown: (job) => !hidden.has(job.name)};
}

function settingsOf() {
  const card = h('div', {class: 'card scroll', tabindex: 0, role: 'region', 'aria-label': 'Settings that differ'});
  const node = h('section', {}, h('h2', {}, 'Settings that differ'), card);
  const update = (jobs) => renew(card, JSON.stringify(jobs.map((job) => [job.name, job.spec])), () => {
    const rows = differences(jobs);
    if (rows.length === 0) return h('p', {class: 'pad soft'}, 'None: the jobs have the same spec.');
    return h('table', {}, h('thead', {}, h('tr', {}, h('th', {scope: 'col'}, 'Setting'), jobs.map((job) => h('th', {scope: 'col'}, jobLink(job.name, job.displayName))))),
      h('tbody', {}, rows.map(([name, values]) => h('tr', {}, h('th', {scope: 'row'}, h('code', {}, name)), values.map((value) => h('td', {}, value))))));
  });
  return {node, update};
}

export function openCompare(query) {
  const ids = [...new Set((query.get('jobs') ?? '').split(',').filter(Boolean))].slice(0, MOST);
  const series = ids.map((id) => new Series(`jobs/${id}`));
  const group = new ChartGroup();
  const charts = CHARTS.map(([column, title], i) => [column, new Chart({title, group, wide: i === 0, plain: true})]);
  const gone = h('p', {class: 'note bad', hidden: true});
  let jobs = [];
  const draw = () => {
    for (const [column, chart] of charts) {
      chart.setLines(jobs.map((job, i) => ({name: job.displayName, color: i % MOST, rough: column !== 'rate', dots: column === 'validation',
        ...series.find((one) => one.job === job.name).line(column), shown: legend.isShown(job)})).filter((line) => line.shown));
    }
  };
  const legend = legendOf(draw);
  const settings = settingsOf();
  const body = h('div', {hidden: true}, gone, legend.node,
    h('section', {}, h('h2', {}, 'Curves'), group.controls(), h('div', {class: 'charts two'}, charts.map(([, chart]) => chart.node))), settings.node);
  const loading = h('div', {class: 'card'}, skeleton(8));
  const node = h('div', {}, h('p', {class: 'crumb'}, h('a', {href: '#/jobs'}, 'Jobs'), ' / Compare'),
    h('div', {class: 'head'}, h('h1', {}, 'Comparison')), loading, body);
  if (ids.length === 0) {
    loading.replaceChildren(empty('Nothing to compare', 'Select jobs in the list, then press Compare.'));
  }
  let drawn = '';
  const refresh = async () => {
    if (ids.length === 0) return;
    const answers = await Promise.all(ids.map((id) => call('JobService/GetJob', {name: `jobs/${id}`}).catch((error) => {
      if (error.code === 'not_found') return null;
      throw error;
    })));
    jobs = answers.filter(Boolean);
    const missing = ids.filter((_, i) => !answers[i]);
    gone.hidden = missing.length === 0;
    setText(gone, `There is no job ${missing.join(', ')} any more.`);
    await Promise.all(jobs.map((job) => series.find((one) => one.job === job.name).refresh()));
    loading.remove();
    body.hidden = false;
    legend.update(jobs);
    settings.update(jobs);
    const version = series.map((one) => one.version).join() + jobs.map((job) => job.name).join();
    if (version !== drawn) draw();
    drawn = version;
  };
  return {node, title: 'Comparison', refresh};
}
