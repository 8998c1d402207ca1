// The browser of the tests, headless Chromium as Debian packages it or the one that CHROMIUM names, and people at it.

import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });

/** For whatever need not happen at once, on a machine that is busy. */
const PATIENCE_MS = 15_000;

/** Somebody at their browser: the page, and what went over its WebSockets. */
export class Visitor {
  /** @param {import('playwright-core').Page} page */
  constructor(page) {
    this.page = page;
    this.sockets = 0;
    this.closed = 0;
    /** @type {{ type: string, [field: string]: unknown }[]} */
    this.frames = [];
    /** @type {string[]} */
    this.addresses = [];
    /** @type {Error[]} */
    this.faults = [];
    page.on('pageerror', (fault) => this.faults.push(fault));
    page.on('websocket', (socket) => {
      this.sockets++;
      this.addresses.push(socket.url());
      socket.on('close', () => this.closed++);
      socket.on('framereceived', ({ payload }) => this.frames.push(JSON.parse(String(payload))));
    });
  }

  /**
   * @param {import('playwright-core').Browser} browser
   * @param {string} url
   * @param {string} name
   */
  static async arrive(browser, url, name, viewport = { width: 1200, height: 720 }) {
    const context = await browser.newContext({ viewport });
    context.setDefaultTimeout(PATIENCE_MS);
    const visitor = new Visitor(await context.newPage());
    await visitor.page.goto(url);
    await visitor.page.getByRole('button', { name }).click();
    await visitor.isConnected();
    return visitor;
  }

  isConnected() {
    return this.page.locator('.status[data-status=connected]').waitFor();
  }

  /** @param {string} team */
  room(team) {
    return this.page.getByRole('region', { name: team });
  }

  /** @param {string} text @param {string} [team] */
  async says(text, team = 'Design') {
    await this.room(team).getByRole('textbox', { name: 'Message' }).fill(text);
    await this.room(team).getByRole('button', { name: 'Send' }).click();
  }

  /** @param {string} text @param {string} [team] */
  reads(text, team = 'Design') {
    return this.room(team).getByText(text, { exact: true }).waitFor();
  }

  /** @param {string} text */
  isTold(text) {
    return this.page.getByRole('list', { name: 'Notices' }).getByText(text).waitFor();
  }

  /** @param {string} name @param {string} state */
  sees(name, state) {
    return this.room('Design')
      .getByRole('listitem')
      .filter({ hasText: new RegExp(`${name}${state}`) })
      .waitFor();
  }

  /** Frames received since a moment, of one type. @param {number} since @param {string} type */
  framesSince(since, type) {
    return this.frames.slice(since).filter((frame) => frame.type === type);
  }

  close() {
    assert.deepEqual(this.faults, [], 'no exception on the page');
    return this.page.context().close();
  }
}
