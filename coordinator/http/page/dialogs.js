// Questions and forms in front of the page: by keys alone, with the service's own words where it refuses, and the focus
// back where it was.
import {copyText} from './clipboard.js';
import {h, setAttributes, setText} from './dom.js';

let made = 0;

/** Shows the dialog with the focus on `first`; resolves when it is closed. */
function show(dialog, first) {
  // A second press of the button that opens it.
  if (document.querySelector('dialog')) return Promise.resolve();
  const opener = document.activeElement;
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      // What opened it may be gone with what it did.
      const back = opener?.isConnected && opener.getClientRects().length ? opener : document.getElementById('main');
      back.focus({preventScroll: true});
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
    first.focus();
  });
}

function errorLine() {
  const node = h('p', {class: 'error', role: 'alert', hidden: true});
  const say = (text) => {
    node.hidden = !text;
    setText(node, text);
  };
  return {node, say};
}

/**
 * Asks before something is done: resolves when it was done or given up. `act` may throw; its error is shown and the
 * question stays.
 */
export async function confirmAction({title, text, verb, danger, act}) {
  const error = errorLine();
  const no = h('button', {type: 'button', class: 'no'}, 'Keep as it is');
  const yes = h('button', {type: 'button', class: danger ? 'danger yes' : 'primary yes'}, verb);
  const dialog = h('dialog', {'aria-labelledby': 'confirm-title', 'aria-describedby': 'confirm-text'},
    h('h2', {id: 'confirm-title'}, title), h('div', {id: 'confirm-text'}, [text].flat().filter(Boolean).map((one) => h('p', {}, one))), error.node,
    h('div', {class: 'choices'}, no, yes));
  no.addEventListener('click', () => dialog.close());
  yes.addEventListener('click', async () => {
    yes.disabled = true;
    try {
      await act();
      dialog.close();
    } catch (failure) {
      error.say(failure.message);
      yes.disabled = false;
      yes.focus();
    }
  });
  await show(dialog, no);
}

function fieldOf(field) {
  made += 1;
  const id = `field-${made}`;
  const common = {id, name: field.name, 'aria-describedby': field.help ? `${id}-help` : null};
  let options = null;
  let input;
  if (field.choices) {
    input = h('select', common, field.choices.map(([value, word]) => h('option', {value, selected: value === field.value}, word)));
  } else {
    options = field.known ? h('datalist', {id: `${id}-known`}, field.known.map((value) => h('option', {value}))) : null;
    input = h('input', {...common, type: 'text', value: field.value ?? '', autocomplete: 'off', spellcheck: 'false',
      inputmode: field.digits ? 'numeric' : null, list: options ? options.id : null, maxlength: field.longest ?? 128});
  }
  const node = h('div', {class: 'field'}, h('label', {for: id}, field.label), input, options,
    field.help ? h('p', {class: 'fine', id: `${id}-help`}, field.help) : null);
  return {...field, node, input};
}

/** A fault that the page itself finds in a field, by the field's name. */
export class FieldError extends Error {
  constructor(field, message) {
    super(message);
    this.fields = [field];
  }
}

/**
 * Asks for values. fields: {name, label, help, value, path, choices: [value, word][], known: values to offer, digits}[];
 * `path` is what the service calls it. act(values) gets texts by name and may throw: the error is shown, its fields are
 * marked, and the form stays. Resolves when it was done or given up.
 */
export async function openForm({title, text, fields, verb, act}) {
  const error = errorLine();
  const made = fields.map(fieldOf);
  const no = h('button', {type: 'button', class: 'no'}, 'Leave it');
  const yes = h('button', {type: 'submit', class: 'primary yes'}, verb);
  const form = h('form', {novalidate: true, class: 'form'}, made.map((field) => field.node), error.node,
    h('div', {class: 'choices'}, no, yes));
  const dialog = h('dialog', {'aria-labelledby': 'form-title'}, h('h2', {id: 'form-title'}, title),
    text ? h('p', {}, text) : null, form);
  no.addEventListener('click', () => dialog.close());
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    yes.disabled = true;
    error.say('');
    for (const {input} of made) input.removeAttribute('aria-invalid');
    try {
      await act(Object.fromEntries(made.map(({name, input}) => [name, input.value.trim()])));
      dialog.close();
    } catch (failure) {
      error.say(failure.message);
      yes.disabled = false;
      const bad = made.filter(({name, path}) => (failure.fields ?? []).some((field) => field === name || field === path));
      for (const {input} of bad) setAttributes(input, {'aria-invalid': 'true'});
      (bad[0]?.input ?? yes).focus();
    }
  });
  await show(dialog, made[0].input);
}

/** Shows a text that is never shown again, to be copied. Closed by its button alone, not by a stray key. */
export async function showSecret({title, text, secret}) {
  const error = errorLine();
  const field = h('input', {type: 'text', class: 'secret', readonly: true, value: secret, 'aria-label': 'Secret', spellcheck: 'false', autocomplete: 'off'});
  const take = h('button', {type: 'button', class: 'primary copy'}, 'Copy');
  const done = h('button', {type: 'button', class: 'done'}, 'Done, I have it');
  const dialog = h('dialog', {'aria-labelledby': 'secret-title', 'aria-describedby': 'secret-text'},
    h('h2', {id: 'secret-title'}, title), h('p', {id: 'secret-text'}, text), h('div', {class: 'secret-line'}, field, take), error.node,
    h('div', {class: 'choices'}, done));
  take.addEventListener('click', async () => {
    try {
      field.select();
      await copyText(field.value);
      error.say('');
      setText(take, 'Copied');
    } catch (failure) {
      error.say(failure.message);
    }
  });
  done.addEventListener('click', () => dialog.close());
  dialog.addEventListener('cancel', (event) => event.preventDefault());
  await show(dialog, take);
  field.value = '';
}
