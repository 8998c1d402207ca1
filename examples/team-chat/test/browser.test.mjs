// The application in headless Chromium: three people, each in a browser context of their own, against the real edge.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { run } from '../run.mjs';
import { launch, Visitor } from './chromium.mjs';

/** The time in which a removal must be seen. */
const AT_ONCE_MS = 1000;

/** @type {import('playwright-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof run>>} */
let chat;
/** @type {string[]} */
const edgeLog = [];

before(async () => {
  chat = await run({ port: 0, edgePort: 0, controlPort: 0, log: (line) => edgeLog.push(line) });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await chat?.stop();
});

const arrive = (/** @type {string} */ name) => Visitor.arrive(browser, chat.url, name);

/** The time of the next click, by the clock of the machine. @param {import('playwright-core').Page} page @returns {Promise<number>} */
const whenClicked = (page) =>
  page.evaluate(
    () => new Promise((resolve) => addEventListener('click', () => resolve(Date.now()), { capture: true, once: true })),
  );

/** The time at which a text is there. @param {import('playwright-core').Page} page @param {string} text @returns {Promise<number>} */
const whenShown = (page, text) =>
  page.evaluate(
    (text) =>
      new Promise((resolve) => {
        const observer = new MutationObserver(() => {
          if (!document.body.innerText.includes(text)) return;
          observer.disconnect();
          resolve(Date.now());
        });
        observer.observe(document.body, { childList: true, subtree: true });
      }),
    text,
  );

const wasRemoved = 'You were removed from this team';

// Issue 6, item 7; HP-8.
test('who is removed sees it at once, and nobody else notices', async (t) => {
  const [ada, ben, cleo] = await Promise.all([arrive('Ada'), arrive('Ben'), arrive('Cleo')]);
  await Promise.all([ada.sees('Ben', 'online'), ada.sees('Cleo', 'online'), cleo.sees('Ben', 'online')]);

  await ben.says('Morning! The new icons are ready.');
  await Promise.all([ada, ben, cleo].map((visitor) => visitor.reads('Morning! The new icons are ready.')));
  await cleo.says('They look great.');
  await ben.reads('They look great.');

  const before = { ben: ben.frames.length, cleo: cleo.frames.length };
  const [clicked, seen] = [whenClicked(ada.page), whenShown(ben.page, wasRemoved)];
  // Each page has carried out what it was asked before when it answers this.
  await Promise.all([ada, ben].map(({ page }) => page.evaluate(() => 0)));
  await ada.room('Design').getByRole('button', { name: 'Remove Ben' }).click();
  const tookMs = (await seen) - (await clicked);
  assert.ok(tookMs < AT_ONCE_MS, `it took ${tookMs} ms`);
  t.diagnostic(`seen ${tookMs} ms after the click`);
  await ben.isTold('Ada removed you from Design');
  assert.equal(await ben.room('Design').count(), 0, 'the room is gone, with all that was said in it');

  // What is said now reaches Cleo as ever, and Ben not at all; what follows in another team shows that it had its time.
  await ada.says('Only those who are still here read this.');
  await cleo.reads('Only those who are still here read this.');
  await cleo.says('Still here.');
  await ada.reads('Still here.');
  await ada.page.getByRole('button', { name: '# Engineering' }).click();
  await ada.says('See you here then, Ben.', 'Engineering');
  await ben.page.getByRole('button', { name: '# Engineering' }).click();
  await ben.reads('See you here then, Ben.', 'Engineering');
  const leaked = ben.framesSince(before.ben, 'event').filter((event) => event.pipe === 'team-design');
  assert.deepEqual(leaked, [], 'nothing of the team reaches who was removed');

  // Cleo: the same connection, no word from the server about permissions, nothing on the page.
  assert.deepEqual([cleo.sockets, cleo.closed], [1, 0]);
  assert.deepEqual(cleo.framesSince(before.cleo, 'system'), []);
  assert.deepEqual(cleo.framesSince(before.cleo, 'push'), []);
  assert.equal(await cleo.page.getByText(wasRemoved).count(), 0);
  assert.equal(await cleo.page.locator('.error').count(), 0);
  // Ben too keeps the connection: only the team is gone.
  assert.deepEqual([ben.sockets, ben.closed], [1, 0]);

  // A new page does not bring it back.
  await ben.page.reload();
  await ben.isConnected();
  await ben.page.getByText(wasRemoved).waitFor();

  // Let back in: live, without a reload.
  await ada.page.getByRole('button', { name: '# Design' }).click();
  await ada.room('Design').getByRole('button', { name: 'Restore Ben' }).click();
  await ben.room('Design').waitFor();
  await ben.isTold('Ada let you back into Design');
  await cleo.sees('Ben', 'online');
  await ada.says('Welcome back.');
  await ben.reads('Welcome back.');
  await ben.says('Good to be back.');
  await cleo.reads('Good to be back.');
  assert.deepEqual([cleo.sockets, cleo.closed], [1, 0]);
  await Promise.all([ada.close(), ben.close(), cleo.close()]);
});

// HP-3, HP-5, SR-12, GD-4.
test('typing, presence, announcements and notices reach whom they are for', async () => {
  const [ada, ben, cleo] = await Promise.all([arrive('Ada'), arrive('Ben'), arrive('Cleo')]);
  await cleo.sees('Ben', 'online');

  await ben.room('Design').getByRole('textbox', { name: 'Message' }).fill('I am thin');
  await cleo.room('Design').getByText('Ben is writing…').waitFor();
  assert.equal(await ben.page.getByText('is writing…').count(), 0, 'not to the one who writes');
  await ben.says('I am thinking.');
  await cleo.reads('I am thinking.');
  await cleo.room('Design').getByText('Ben is writing…').waitFor({ state: 'detached' });

  assert.equal(await ben.page.getByRole('textbox', { name: 'Announcement' }).count(), 0);
  await ada.page.getByRole('textbox', { name: 'Announcement' }).fill('Lunch at noon, in the garden.');
  await ada.page.getByRole('button', { name: 'Announce' }).click();
  await Promise.all([ada, ben, cleo].map(({ page }) => page.getByText('Lunch at noon, in the garden.').waitFor()));

  const before = cleo.frames.length;
  await ada.room('Design').getByRole('button', { name: 'Nudge Ben' }).click();
  await ben.isTold('Ada nudges you in Design');
  assert.deepEqual(cleo.framesSince(before, 'push'), [], 'a notice to Ben is nobody else’s');

  await ben.close();
  await cleo.sees('Ben', 'away');
  await Promise.all([ada.close(), cleo.close()]);
});

// HP-2, HP-6, SR-8, GD-7: what the page does not offer is refused by the edge and by the application as well.
test('a page that asks for more than it may have gets nothing', async () => {
  const [cleo, dan] = await Promise.all([arrive('Cleo'), arrive('Dan')]);
  const refused = await dan.page.evaluate(async () => {
    const edge = document.querySelector('meta[name=edge]')?.getAttribute('content') ?? '';
    const { token } = await (await fetch('/api/pipe', { method: 'POST' })).json();
    const socket = new WebSocket(`${edge}/v1/connect`, ['pipeward.v1', `pipeward.token.${token}`]);
    await new Promise((resolve) => (socket.onopen = resolve));
    const asked = [
      { type: 'subscribe', pipe: 'team-design' },
      { type: 'presence', pipe: 'team-design' },
      { type: 'publish', pipe: 'team-design', event: 'message', data: { text: 'let me in' } },
      { type: 'publish', pipe: 'announcements', event: 'announcement', data: { text: 'I am the boss' } },
      { type: 'publish', pipe: 'team-engineering', event: 'message', data: { text: 42 } },
      { type: 'publish', pipe: 'team-engineering', event: 'typing', data: { active: true, more: 'x'.repeat(100) } },
    ];
    /** @type {Promise<unknown[]>} */
    const answers = new Promise((resolve) => {
      /** @type {unknown[]} */
      const got = [];
      socket.onmessage = ({ data }) => {
        const frame = JSON.parse(data);
        if (frame.type === 'reply' && got.push(frame.code) === asked.length) resolve(got);
      };
    });
    asked.forEach((request, id) => socket.send(JSON.stringify({ id, ...request })));
    const codes = await answers;
    const call = async (/** @type {string} */ path, body = { team: 'design', person: 'cleo' }) =>
      (await fetch(path, { method: 'POST', body: JSON.stringify(body) })).status;
    return {
      codes,
      remove: await call('/api/remove'),
      restore: await call('/api/restore'),
      nudge: await call('/api/nudge'),
    };
  });
  assert.deepEqual(refused, {
    codes: ['FORBIDDEN', 'FORBIDDEN', 'FORBIDDEN', 'FORBIDDEN', 'SCHEMA', 'PAYLOAD_TOO_LARGE'],
    remove: 403,
    restore: 403,
    nudge: 403,
  });
  assert.equal(await cleo.page.getByText('let me in').count(), 0);
  assert.equal(await cleo.page.getByText('I am the boss').count(), 0);
  assert.ok(
    cleo.addresses.every((address) => !address.includes('token')),
    'the token is never in the address',
  );

  const elsewhere = await fetch(`${chat.url}/api/sign-in`, {
    method: 'POST',
    headers: { origin: 'https://elsewhere.example' },
    body: JSON.stringify({ person: 'ada' }),
  });
  assert.equal(elsewhere.status, 403);
  assert.equal((await fetch(`${chat.url}/api/pipe`, { method: 'POST' })).status, 401);
  assert.equal((await fetch(`${chat.url}/api/remove`, { method: 'POST' })).status, 401);
  await Promise.all([cleo.close(), dan.close()]);
});

// HP-8, and issue 6, item 2.
test('the edge crashes and comes back: so do the pages, with what was written meanwhile, and removals hold', async () => {
  const [ada, ben, cleo] = await Promise.all([arrive('Ada'), arrive('Ben'), arrive('Cleo')]);
  await ada.sees('Cleo', 'online');
  await ada.room('Design').getByRole('button', { name: 'Remove Ben' }).click();
  await ben.page.getByText(wasRemoved).waitFor();
  await ada.sees('Ben', 'removed');

  await chat.crashEdge();
  await Promise.all([ada, ben, cleo].map(({ page }) => page.locator('.status[data-status=reconnecting]').waitFor()));
  await cleo.says('First.');
  await cleo.says('Second.');
  await chat.restartEdge();
  await Promise.all([ada, ben, cleo].map((visitor) => visitor.isConnected()));
  // Who comes back after Cleo does not get what she wrote; she gets it herself, as she subscribes again first.
  await cleo.reads('Second.');
  const texts = cleo.framesSince(0, 'event').flatMap(({ event, data }) => (event === 'message' ? [data] : []));
  assert.deepEqual(texts, [{ text: 'First.' }, { text: 'Second.' }], 'once, and in order');
  assert.ok(ben.frames.every((frame) => frame.type !== 'event' || frame.pipe !== 'team-design'));
  await ben.page.getByText(wasRemoved).waitFor();
  await cleo.sees('Ada', 'online');
  await cleo.says('Third.');
  await ada.reads('Third.');

  await ada.room('Design').getByRole('button', { name: 'Restore Ben' }).click();
  await ben.room('Design').waitFor();
  await Promise.all([ada.close(), ben.close(), cleo.close()]);
});

test('signing out ends the connections of this session, and of no other', async () => {
  const [here, there] = await Promise.all([arrive('Ben'), arrive('Ben')]);
  const second = await here.page.context().newPage();
  const tab = new Visitor(second);
  await second.goto(chat.url);
  await tab.isConnected();
  await here.page.getByRole('button', { name: 'Sign out' }).click();
  await tab.page.locator('.status[data-status=disconnected]').waitFor();
  await here.page.getByText('Who are you?').waitFor();
  assert.deepEqual([there.sockets, there.closed], [1, 0]);
  await there.says('I am still here.');
  await there.reads('I am still here.');
  await Promise.all([here.close(), there.close()]);
});
