// Asks for a token where the service wants one.
import {h} from './dom.js';
import {signIn} from './session.js';

export function openSignIn(message, done) {
  const input = h('input', {type: 'password', id: 'token', name: 'token', autocomplete: 'off', spellcheck: 'false',
    required: true, 'aria-describedby': 'token-help token-error'});
  const error = h('p', {class: 'error', id: 'token-error', role: 'alert'}, message);
  const button = h('button', {class: 'primary', type: 'submit'}, 'Sign in');
  const form = h('form', {novalidate: true},
    h('label', {for: 'token'}, 'Token'), input,
    h('p', {class: 'fine', id: 'token-help'}, 'It is kept in this tab alone, until the tab is closed.'),
    error, h('div', {}, button));
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const token = input.value.trim();
    if (!token || /[^\x21-\x7e]/.test(token)) {
      error.textContent = token ? 'A token has neither spaces nor letters beyond ASCII.' : 'Paste a token first.';
      input.focus();
      return;
    }
    button.disabled = true;
    error.textContent = '';
    try {
      await signIn(token);
      done();
    } catch (failure) {
      error.textContent = failure.code === 'unauthenticated'
        ? 'The service does not know this token. Check that it is whole, or ask your admin for a new one.'
        : failure.message;
      button.disabled = false;
      input.setAttribute('aria-invalid', 'true');
      input.focus();
      input.select();
    }
  });
  const node = h('div', {class: 'sign-in card pad'}, h('h1', {}, 'Sign in'),
    h('p', {class: 'soft'}, 'This service wants a token. An admin makes one on this page, under Tokens, or with ',
      h('code', {}, 'tundra admin tokens create'), '.'), form);
  requestAnimationFrame(() => input.focus());
  return {node, title: 'Sign in'};
}
