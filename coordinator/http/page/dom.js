// Making and changing elements. Text from the service only ever becomes text nodes and attributes.

const SVG = 'http://www.w3.org/2000/svg';

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') {
      for (const [type, listener] of Object.entries(value)) node.addEventListener(type, listener);
    } else {
      node.setAttribute(name, value === true ? '' : String(value));
    }
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

/** An HTML element: h('a', {href: '#/jobs', on: {click}}, 'Jobs'). */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Sets the text when it differs, so that selections and screen readers are left alone. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) {
      node.removeAttribute(name);
    } else if (node.getAttribute(name) !== String(value)) {
      node.setAttribute(name, value === true ? '' : String(value));
    }
  }
}

/** Replaces all children, unless what is there was made from the same `version`. */
export function renew(parent, version, make) {
  if (parent.madeFrom === version) return;
  parent.madeFrom = version;
  parent.replaceChildren(...[make()].flat().filter(Boolean));
}

const rowSets = new WeakMap();

/** key -> {node, update} of what keyed() has put there. */
export function rowsOf(parent) {
  return rowSets.get(parent) ?? new Map();
}

/**
 * Makes the children of `parent` agree with `items`: make(item) gives {node, update}, once for each key; a node that
 * stays keeps its focus.
 */
export function keyed(parent, items, keyOf, make) {
  const before = rowsOf(parent);
  const after = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    const row = before.get(key) ?? make(item);
    after.set(key, row);
    row.update(item);
    if (row.node === at) {
      at = at.nextSibling;
    } else {
      parent.insertBefore(row.node, at);
    }
  }
  for (const [key, row] of before) {
    if (after.has(key)) continue;
    // The focus must not fall out of the page with what had it.
    if (row.node.contains(document.activeElement)) document.getElementById('main').focus({preventScroll: true});
    row.node.remove();
  }
  rowSets.set(parent, after);
}

/** Says it to screen readers. */
export function announce(text) {
  const live = document.getElementById('live');
  live.textContent = '';
  requestAnimationFrame(() => { live.textContent = text; });
}

/** Shown while nothing has come yet. */
export function skeleton(lines = 4) {
  return h('div', {class: 'skeleton', role: 'status', 'aria-label': 'Loading'},
    Array.from({length: lines}, () => h('span')));
}

/** Shown where there is nothing: a heading, a sentence, a command. */
export function empty(heading, text, command) {
  return h('div', {class: 'empty'}, h('h2', {}, heading), h('p', {}, text), command ? h('code', {}, command) : null);
}
