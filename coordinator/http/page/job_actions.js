// What may be done to a job in its state, each after a question.
import {call} from './api.js';
import {confirmAction} from './dialogs.js';
import {announce, h} from './dom.js';
import {maySteer} from './session.js';
import {hasEnded} from './states.js';

const ACTIONS = [
  {
    word: 'Pause', method: 'PauseJob', done: 'asked to pause',
    fits: (job) => !hasEnded(job.state) && job.desiredState === 'RUN',
    text: 'Its state is saved after the step under way. It can be resumed at any time and gives the same adapter.',
  },
  {
    word: 'Resume', method: 'ResumeJob', done: 'asked to run',
    fits: (job) => !hasEnded(job.state) && job.desiredState === 'PAUSE',
    text: 'It goes back into the queue at its place and goes on from its last saved step.',
  },
  {
    word: 'Cancel', verb: 'Cancel job', method: 'CancelJob', danger: true, done: 'asked to stop',
    fits: (job) => !hasEnded(job.state) && job.desiredState !== 'CANCEL',
    text: 'It stops for good and cannot be resumed. Its checkpoints stay until the job is deleted.',
  },
  {
    word: 'Delete', verb: 'Delete job', method: 'DeleteJob', danger: true, done: 'deleted',
    fits: (job) => hasEnded(job.state),
    text: 'Its events, figures, checkpoints and adapter are deleted with it. This cannot be undone.',
  },
];

/** {node, update(job)}; `onDone` is called after each action. */
export function actionsOf(onDone) {
  const node = h('div', {class: 'actions'});
  let job = null;
  const buttons = ACTIONS.map((action) => {
    const button = h('button', {type: 'button', class: action.danger ? 'danger' : '', 'data-action': action.method}, action.word);
    button.addEventListener('click', async () => {
      const {name, displayName} = job;
      let did = false;
      await confirmAction({
        title: `${action.word} ${displayName}?`,
        text: action.text,
        verb: action.verb ?? action.word,
        danger: action.danger,
        act: async () => {
          await call(`JobService/${action.method}`, {name});
          did = true;
        },
      });
      if (!did) return;
      announce(`${displayName} is ${action.done}`);
      if (action.method === 'DeleteJob') location.hash = '#/jobs';
      else onDone();
    });
    return button;
  });
  const update = (now) => {
    job = now;
    const fitting = buttons.filter((_, i) => maySteer() && ACTIONS[i].fits(now));
    if (fitting.length === node.children.length && fitting.every((button, i) => node.children[i] === button)) return;
    const focused = node.contains(document.activeElement);
    node.replaceChildren(...fitting);
    // The button that was used may be gone: the next one takes the focus.
    if (focused && !node.contains(document.activeElement)) fitting[0]?.focus();
  };
  return {node, update};
}
