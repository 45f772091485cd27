// Texts that the page gives away: to the clipboard, and as files.
import {h} from './dom.js';

/** Throws an Error that says what to do where the browser does not let the page copy. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return;
  } catch {
    // Without TLS there is no clipboard beyond loopback.
  }
  const field = h('textarea', {class: 'sr', 'aria-hidden': 'true'}, text);
  // What is outside an open dialog cannot be selected.
  (document.querySelector('dialog[open]') ?? document.body).append(field);
  const before = document.activeElement;
  field.select();
  const copied = document.execCommand('copy');
  field.remove();
  before?.focus();
  if (!copied) throw new Error('The browser does not let the page copy: select it and press Ctrl+C.');
}

/** Saves it where the browser keeps downloads. */
export function saveFile(blob, filename) {
  const url = URL.createObjectURL(blob);
  const link = h('a', {href: url, download: filename});
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

/** A button that copies what text() gives, and says how that went. */
export function copyButton(word, text, {label = null, kind = 'small'} = {}) {
  const button = h('button', {type: 'button', class: kind, 'aria-label': label}, word);
  let timer = 0;
  button.addEventListener('click', async () => {
    clearTimeout(timer);
    try {
      await copyText(text());
      button.textContent = 'Copied';
    } catch (failure) {
      button.textContent = 'Not copied';
      button.title = failure.message;
    }
    timer = setTimeout(() => { button.textContent = word; }, 3000);
  });
  return button;
}
