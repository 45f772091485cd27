// The parts of a job's view that are lists: samples, events, files, the spec.
import {call, download} from './api.js';
import {copyButton} from './clipboard.js';
import {announce, h, keyed, renew, setText} from './dom.js';
import * as format from './format.js';
import {follow} from './series.js';
import {hasEnded} from './states.js';

function answer(word, text, ended) {
  return h('div', {class: text ? 'answer' : 'answer none'}, h('h4', {}, word), text || (ended ? 'None' : 'Not yet'));
}

/** {node, update(job)}: each prompt with what was said before and after training. */
export function samplesOf() {
  const list = h('div', {class: 'card'});
  const node = h('section', {hidden: true}, h('h2', {}, 'Samples'), list);
  const update = (job) => {
    const prompts = job.spec?.eval?.samples ?? [];
    const samples = (job.samples ?? []).length ? job.samples : prompts.map((prompt) => ({prompt}));
    node.hidden = samples.length === 0;
    renew(list, JSON.stringify([samples, hasEnded(job.state)]), () => samples.map((sample) => h('article', {class: 'sample'},
      h('h3', {class: 'prompt'}, sample.prompt),
      h('div', {class: 'pair'}, answer('Before training', sample.before, hasEnded(job.state)),
        answer('After training', sample.after, hasEnded(job.state))))));
  };
  return {node, update};
}

/** {node, refresh()}: what happened, newest first. */
export function eventsOf(job) {
  const list = h('ol', {class: 'card events', tabindex: 0, 'aria-label': 'Events, newest first'});
  const node = h('section', {}, h('h2', {}, 'Events'), list);
  let events = [];
  let after = '0';
  const refresh = async () => {
    const before = after;
    await follow('JobService/ListEvents', 'events', job, after, (found, last) => {
      after = last;
      events = [...found.reverse(), ...events];
    });
    if (after === before) return;
    keyed(list, events, (event) => event.sequence, (event) => ({
      node: h('li', {}, h('time', {datetime: event.time, title: new Date(event.time).toLocaleString()}, format.clock(event.time)),
        h('span', {class: event.warning ? 'dot warn' : 'dot', role: event.warning ? 'img' : null, 'aria-label': event.warning ? 'Warning' : null}),
        h('span', {}, event.message)),
      update: () => {},
    }));
  };
  return {node, refresh};
}

function fileButtons(adapter) {
  return h('div', {class: 'buttons'}, (adapter?.files ?? []).map((file) => {
    const button = h('button', {type: 'button', class: 'small', title: `${file.filename}, ${format.bytes(file.sizeBytes)}, SHA-256 ${file.sha256}`,
      'aria-label': `Download ${file.filename} of step ${adapter.step ?? 0}`}, `↓ ${file.filename.replace('adapter_', '')}`);
    button.addEventListener('click', async () => {
      button.disabled = true;
      try {
        await download(adapter.name, file.filename);
        announce(`${file.filename} is downloaded`);
      } catch (error) {
        announce(error.message);
        setText(button, `${button.textContent} failed`);
        button.title = error.message;
      }
      button.disabled = false;
    });
    return button;
  }));
}

function fileRow(title, adapter, fine) {
  const size = (adapter?.files ?? []).reduce((sum, file) => sum + Number(file.sizeBytes ?? 0), 0);
  return h('li', {}, h('div', {}, h('div', {class: 'name'}, title), h('div', {class: 'fine'}, [fine, format.bytes(size)].filter(Boolean).join(', '))), fileButtons(adapter));
}

/** {node, update(job), refresh()}: the adapter and the checkpoints, with their files. */
export function adapterOf(job) {
  const list = h('ul', {class: 'card files'});
  const node = h('section', {}, h('h2', {}, 'Adapter and checkpoints'), list);
  let final = null;
  let page = {};
  const render = () => {
    const checkpoints = page.checkpoints ?? [];
    renew(list, JSON.stringify([final?.name, checkpoints.map((one) => one.name)]), () => [
      final ? fileRow('Final adapter', final, `step ${format.count(final.step)}`) : null,
      ...checkpoints.map((one) => fileRow(`Checkpoint, step ${format.count(one.step)}`, one.adapter, format.clock(one.createTime))),
      !final && checkpoints.length === 0 ? h('li', {class: 'soft'}, 'None yet: the first is kept with the first checkpoint.') : null,
    ]);
  };
  const update = (now) => {
    final = now.adapter ?? null;
    render();
  };
  const refresh = async () => {
    page = await call('ArtifactService/ListCheckpoints', {parent: job});
    render();
  };
  return {node, update, refresh};
}

/** {node, update(job)}: the spec as the job file has it, defaults filled in. */
export function specOf() {
  const text = h('pre', {class: 'card spec', tabindex: 0, 'aria-label': 'Spec'});
  const node = h('section', {}, h('h2', {}, 'Spec'), text);
  return {node, update: (job) => setText(text, format.yaml(job.spec ?? {}))};
}

/** {node, update(job)}: how the adapter is taken and tried on a command line; shown once there is one. */
export function commandsOf() {
  const list = h('ul', {class: 'card commands'});
  const node = h('section', {hidden: true}, h('h2', {}, 'Use it'), list);
  const update = (job) => {
    node.hidden = !job.adapter;
    if (!job.adapter) return;
    const id = format.idOf(job.name);
    const lines = [`tundra download ${id} --to my-adapter`, `tundra generate --base ${job.spec?.base} --adapter ${id} --prompt "Hello"`];
    renew(list, lines.join(), () => lines.map((line) => h('li', {}, h('code', {}, line), copyButton('Copy', () => line, {label: `Copy: ${line}`}))));
  };
  return {node, update};
}
