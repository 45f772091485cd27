// A list that the service gives by pages: which one is shown, and the buttons to the next and the one before.
import {h, setText} from './dom.js';
import * as format from './format.js';

/**
 * `words` are those of the two buttons. onTurn() is called when another page is wanted; it asks for `pager.token` and
 * tells update() what came.
 */
export class Pager {
  constructor({size, words = ['Newer', 'Older'], onTurn}) {
    this.size = size;
    this.tokens = [''];
    this.next = '';
    this.range = h('span');
    [this.back, this.forth] = words.map((word) => h('button', {type: 'button', class: 'small', disabled: true}, word));
    this.buttons = h('div', {hidden: true}, this.back, this.forth);
    this.node = h('div', {class: 'pager'}, this.range, this.buttons);
    const turn = (change) => {
      change();
      scrollTo(0, 0);
      onTurn();
    };
    this.back.addEventListener('click', () => turn(() => this.tokens.pop()));
    this.forth.addEventListener('click', () => turn(() => this.tokens.push(this.next)));
  }

  /** Of the page that is wanted; '' for the first. */
  get token() {
    return this.tokens.at(-1);
  }

  /** The request's fields for the page that is wanted. */
  get fields() {
    return {pageSize: this.size, ...(this.token ? {pageToken: this.token} : {})};
  }

  /** Number of the first item shown, from 0. */
  get first() {
    return (this.tokens.length - 1) * this.size;
  }

  reset() {
    this.tokens = [''];
  }

  /** `count` items came, and the token of the page behind them. */
  update(count, next) {
    this.next = next ?? '';
    const from = format.count(this.first + 1);
    setText(this.range, count > 1 ? `${from}–${format.count(this.first + count)}` : count ? from : '');
    this.back.disabled = this.tokens.length === 1;
    this.forth.disabled = !this.next;
    // One page needs no buttons.
    this.buttons.hidden = this.back.disabled && this.forth.disabled;
  }

  /**
   * request(fields) of the page that is wanted; null when another one is wanted by now. A token that the service does not
   * know any more, and a page that has become empty, lead back to the first.
   */
  async ask(request) {
    const {token} = this;
    try {
      const page = await request(this.fields);
      return token === this.token ? page : null;
    } catch (error) {
      if (!token || error.code !== 'invalid_argument' || !error.fields.includes('page_token')) throw error;
      this.reset();
      return request(this.fields);
    }
  }
}
