// `npm run picture FILE.png`: the picture of the documentation. Ada at her desk, and Ben, whom she has just removed, on his phone.

import { writeFile } from 'node:fs/promises';
import { run } from '../run.mjs';
import { launch, Visitor } from './chromium.mjs';

const [path] = process.argv.slice(2);
if (!path) throw new Error('usage: npm run picture FILE.png');

const chat = await run({ port: 0, edgePort: 0, controlPort: 0, log: () => {} });
const browser = await launch();
try {
  const ada = await Visitor.arrive(browser, chat.url, 'Ada', { width: 900, height: 600 });
  const ben = await Visitor.arrive(browser, chat.url, 'Ben', { width: 300, height: 560 });
  const cleo = await Visitor.arrive(browser, chat.url, 'Cleo');
  await ben.sees('Cleo', 'online');

  await ada.page.getByRole('textbox', { name: 'Announcement' }).fill('Lunch at noon, in the garden.');
  await ada.page.getByRole('button', { name: 'Announce' }).click();
  await ben.says('The new icons are in the folder.');
  await cleo.says('Looking at them now. The blue is much calmer.');
  await cleo.reads('Looking at them now. The blue is much calmer.');
  await ben.says('I am off the project from today. Take me out, please?');
  await ada.reads('I am off the project from today. Take me out, please?');
  await ada.room('Design').getByRole('button', { name: 'Remove Ben' }).click();
  await ben.page.getByText('You were removed').waitFor();
  await ada.says('Done. Enjoy the new one!');
  await cleo.room('Design').getByRole('button', { name: 'Nudge Ada' }).click();
  await ada.isTold('Cleo nudges you in Design');
  await ada.sees('Ben', 'removed');
  await cleo.room('Design').getByRole('textbox', { name: 'Message' }).fill('That was');
  await ada.room('Design').getByText('Cleo is writing…').waitFor();

  const shots = [];
  for (const { page } of [ada, ben])
    shots.push(`data:image/png;base64,${(await page.screenshot()).toString('base64')}`);
  const both = await browser.newPage({ viewport: { width: 1280, height: 640 } });
  await both.setContent(`
    <style>
      body { margin: 0; height: 640px; display: flex; justify-content: space-evenly; align-items: center; background: #dfe3ee; }
      img { border-radius: 12px; box-shadow: 0 8px 28px #0004; }
      img + img { border-radius: 24px; border: 6px solid #16181d; }
    </style>
    ${shots.map((shot) => `<img src="${shot}">`).join('')}`);
  await writeFile(path, await both.screenshot());
} finally {
  await browser.close();
  await chat.stop();
}
