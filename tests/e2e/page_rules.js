// Basic rules of accessibility over the page as it stands, from the success criteria of WCAG 2.2 that a program can
// check: names, labels, headings, landmarks, contrast, ids, what can be tabbed to. Returns what breaks them.
const faults = [];
const shown = (node) => {
  const style = getComputedStyle(node);
  const box = node.getBoundingClientRect();
  return style.visibility !== 'hidden' && style.display !== 'none' && box.width > 0 && box.height > 0;
};
const told = (node) => `<${node.tagName.toLowerCase()}${node.id ? `#${node.id}` : ''} class="${node.getAttribute('class') ?? ''}"> ${node.textContent.trim().slice(0, 40)}`;
const textOf = (id) => document.getElementById(id)?.textContent.trim() ?? '';
const nameOf = (node) => (node.getAttribute('aria-labelledby') ?? '').split(' ').map(textOf).join(' ').trim() ||
  node.getAttribute('aria-label')?.trim() || [...(node.labels ?? [])].map((label) => label.textContent.trim()).join(' ') ||
  (['BUTTON', 'A', 'SUMMARY'].includes(node.tagName) ? node.textContent.trim() : '') || node.querySelector?.('img[alt]')?.alt || '';

if (!document.documentElement.lang) faults.push('the document has no language');
if (!document.title.trim()) faults.push('the document has no title');
for (const [what, selector] of [['main', 'main'], ['banner', 'body > header'], ['navigation', 'nav']]) {
  if (!document.querySelector(selector)) faults.push(`there is no ${what} landmark`);
}
if (document.querySelectorAll('main').length !== 1) faults.push('there must be one main');

const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
for (const id of new Set(ids.filter((one, i) => ids.indexOf(one) !== i))) faults.push(`the id ${id} is there twice`);

let level = 0;
const headings = [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].filter((node) => node.offsetParent !== null);
if (headings.filter((node) => node.tagName === 'H1').length !== 1) faults.push('there must be one h1');
for (const heading of headings) {
  const now = Number(heading.tagName[1]);
  if (now > level + 1) faults.push(`the heading ${told(heading)} skips a level`);
  if (!heading.textContent.trim()) faults.push('a heading is empty');
  level = now;
}

for (const node of document.querySelectorAll('input,select,textarea,button,a[href],summary,dialog,progress,[role="img"],[role="region"],[role="application"]')) {
  if (shown(node) && !nameOf(node)) faults.push(`no name: ${told(node)}`);
}
for (const image of document.querySelectorAll('img')) {
  if (!image.hasAttribute('alt')) faults.push(`no alt: ${image.src}`);
}
for (const attribute of ['aria-labelledby', 'aria-describedby', 'for']) {
  for (const node of document.querySelectorAll(`[${attribute}]`)) {
    for (const id of node.getAttribute(attribute).split(' ')) {
      if (!document.getElementById(id)) faults.push(`${attribute} of ${told(node)} names ${id}, which is not there`);
    }
  }
}
for (const node of document.querySelectorAll('[tabindex]')) {
  if (Number(node.getAttribute('tabindex')) > 0) faults.push(`tabindex above 0: ${told(node)}`);
}
for (const table of document.querySelectorAll('table')) {
  if ([...table.querySelectorAll('thead th')].some((cell) => !cell.hasAttribute('scope'))) faults.push('a column has no scope');
}
for (const node of document.querySelectorAll('ul, ol')) {
  if ([...node.children].some((child) => child.tagName !== 'LI')) faults.push(`a list has other children: ${told(node)}`);
}
for (const node of document.querySelectorAll('*')) {
  for (const {name} of node.attributes) {
    if (name.startsWith('on')) faults.push(`an inline listener: ${told(node)}`);
  }
}

// Contrast, of each text against what is painted beneath it: 4.5, or 3 where the text is large.
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const parse = (color) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const over = (top, ground) => [0, 1, 2].map((i) => top[i] * top[3] + ground[i] * (1 - top[3])).concat(1);
const groundOf = (node) => {
  const layers = [];
  for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((ground, layer) => over(layer, ground), [255, 255, 255, 1]);
};
const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let texts = 0;
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !shown(node) || node.closest('.sr, noscript, .skip, :disabled, table.cards thead')) continue;
  const style = getComputedStyle(node);
  let opacity = 1;
  for (let at = node; at; at = at.parentElement) opacity *= Number(getComputedStyle(at).opacity);
  const ground = groundOf(node);
  const ink = parse(node instanceof SVGElement ? style.fill : style.color);
  const [a, b] = [luminance(over([ink[0], ink[1], ink[2], ink[3] * opacity], ground)), luminance(ground)].sort((x, y) => y - x);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  const contrast = (a + 0.05) / (b + 0.05);
  texts += 1;
  if (contrast < (large ? 3 : 4.5)) faults.push(`contrast ${contrast.toFixed(2)}: ${told(node)}`);
}
if (texts < 5) faults.push('hardly any text was found');
if (document.documentElement.scrollWidth > innerWidth) faults.push(`wider than the window: ${document.documentElement.scrollWidth} > ${innerWidth}`);
return [...new Set(faults)];
