// Serve the built page with the files of a folder, open each in Chromium, and save what it shows.
//   node pictures.mjs FOLDER OUTPUT      (CHROMIUM: path of the browser)
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join } from 'node:path';
import { chromium } from 'playwright-core';

const [folder, output] = process.argv.slice(2);
const types = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm' };
const server = createServer((request, response) => {
  const name = new URL(request.url, 'http://localhost').pathname;
  for (const place of [join('dist', name === '/' ? 'index.html' : name), join(folder, name)]) {
    try {
      const content = readFileSync(place);
      response.writeHead(200, { 'Content-Type': types[extname(place)] ?? 'application/octet-stream' });
      response.end(content);
      return;
    } catch {
      // The next place.
    }
  }
  response.writeHead(404).end();
}).listen(0, '127.0.0.1');

mkdirSync(output, { recursive: true });
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--use-gl=swiftshader', '--enable-unsafe-swiftshader'] });
let failed = 0;
for (const file of readdirSync(folder).filter((name) => name.endsWith('.h5'))) {
  const page = await browser.newPage({ viewport: { width: 1366, height: 768 } });
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  await page.goto(`http://127.0.0.1:${server.address().port}/?file=${file}`);
  await page.waitForSelector('figure, canvas', { timeout: 60000 }).catch(() => errors.push('no plot'));
  await page.waitForTimeout(2000);
  await page.screenshot({ path: join(output, `${file.replace('.h5', '')}.png`) });
  console.log(`${file}: ${errors.length ? errors.join('; ') : 'shown without an error'}`);
  failed += errors.length > 0;
  await page.close();
}
await browser.close();
server.close();
process.exit(failed ? 1 : 0);
