// The live curves of one job.
import {Chart} from './chart.js';
import {ChartGroup} from './chart_group.js';
import {saveFile} from './clipboard.js';
import {h, renew} from './dom.js';
import * as format from './format.js';
import {Series} from './series.js';

const SHOWN_ROWS = 100;

/** The latest figures as a table, made only while it is open. */
function figuresOf(series) {
  const body = h('tbody');
  const words = ['Step', 'Training loss', 'Validation loss', 'Learning rate', 'Gradient norm', 'Tokens/s'];
  const node = h('details', {}, h('summary', {}, `The last ${SHOWN_ROWS} figures as a table`),
    h('div', {class: 'card figures', tabindex: 0, role: 'region', 'aria-label': 'Figures'}, h('table', {},
      h('thead', {}, h('tr', {}, words.map((word) => h('th', {class: 'num', scope: 'col'}, word)))), body)));
  const update = () => {
    if (!node.open) return;
    renew(body, series.version, () => {
      const {step, train, validation, rate, norm, speed} = series.columns;
      const rows = [];
      for (let i = series.length - 1; i >= Math.max(0, series.length - SHOWN_ROWS); i -= 1) {
        const cells = [train, validation, rate, norm, speed].map((column) => h('td', {class: 'num'}, format.figure(column[i])));
        rows.push(h('tr', {}, h('th', {scope: 'row', class: 'num'}, format.count(step[i])), cells));
      }
      return rows;
    });
  };
  node.addEventListener('toggle', update);
  return {node, update};
}

/** {node, refresh()}. */
export function curvesOf(job) {
  const series = new Series(job);
  const group = new ChartGroup();
  const loss = new Chart({title: 'Loss', group, wide: true});
  const rate = new Chart({title: 'Learning rate', group});
  const norm = new Chart({title: 'Gradient norm', group});
  const speed = new Chart({title: 'Tokens per second', group});
  const figures = figuresOf(series);
  const save = h('button', {type: 'button', class: 'small', disabled: true, 'aria-label': 'Download all figures as CSV'}, '↓ CSV');
  save.addEventListener('click', () => saveFile(new Blob([series.csv()], {type: 'text/csv'}), `${format.idOf(job)}.csv`));
  const controls = group.controls();
  controls.append(save);
  const node = h('section', {}, h('h2', {}, 'Curves'), controls,
    h('div', {class: 'charts three'}, [loss, rate, norm, speed].map((chart) => chart.node)), figures.node);
  let version = -1;
  const refresh = async () => {
    await series.refresh();
    if (version === series.version) return;
    version = series.version;
    save.disabled = series.length === 0;
    loss.setLines([{name: 'training', color: 0, rough: true, ...series.line('train')},
      {name: 'validation', color: 1, dots: true, ...series.line('validation')}]);
    rate.setLines([{name: 'learning rate', color: 0, ...series.line('rate')}]);
    norm.setLines([{name: 'gradient norm', color: 2, rough: true, ...series.line('norm')}]);
    speed.setLines([{name: 'tokens per second', color: 3, rough: true, ...series.line('speed')}]);
    figures.update();
  };
  return {node, refresh};
}
