// The two browsers behind one face. Chromium is driven by playwright-core, Firefox by puppeteer-core over WebDriver
// BiDi, because Playwright cannot drive Debian's Firefox. Both are the distribution's own builds.

import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const CHROMIUM = process.env.CHROMIUM_BIN ?? '/usr/bin/chromium';
const FIREFOX = process.env.FIREFOX_BIN ?? '/usr/bin/firefox-esr';
/** `MOTET_CARRIER=poll`: no page has WebSockets, as behind some firewalls, so that the whole suite runs over requests. */
const WITHOUT_SOCKETS = process.env.MOTET_CARRIER === 'poll'
  ? '\nwindow.WebSocket = class { constructor() { throw new DOMException("blocked", "SecurityError"); } };' : '';
const INSTRUMENTS = readFileSync(fileURLToPath(new URL('./instruments.js', import.meta.url)), 'utf8') + WITHOUT_SOCKETS;

/**
 * An empty page of whatever origin it is asked from, put there by the driver: the tests' own page needs the server's origin and its
 * modules, but not its application, and no content security policy that forbids made-up sound.
 */
export const BLANK = '/blank-page-of-the-tests';
const BLANK_HTML = '<!doctype html><html lang="en"><meta charset="utf-8"><title>member</title><body></body></html>';

async function serveBlank(kind, page) {
  const response = { status: 200, contentType: 'text/html; charset=utf-8', body: BLANK_HTML };
  if (kind === 'chromium') {
    await page.route(`**${BLANK}*`, (route) => route.fulfill(response));
    return;
  }
  await page.setRequestInterception(true);
  page.on('request', (request) => {
    const answered = new URL(request.url()).pathname === BLANK ? request.respond(response) : request.continue();
    answered.catch(() => {}); // the page went away
  });
}

const CHROMIUM_FLAGS = [
  '--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--autoplay-policy=no-user-gesture-required',
];

/** Frames per second of made-up cameras. */
const DEVICE_FPS = 10;

const FIREFOX_PREFERENCES = {
  // Sound without a gesture; nobody can click here.
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  // Nothing may leave this machine: no update, telemetry, safe-browsing list, codec or captive-portal request.
  'app.normandy.enabled': false,
  'app.update.enabled': false,
  'browser.safebrowsing.downloads.enabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'browser.safebrowsing.phishing.enabled': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'extensions.systemAddon.update.enabled': false,
  'media.gmp-manager.url': '',
  'media.gmp-manager.updateEnabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'services.settings.server': 'data:,',
  'toolkit.telemetry.enabled': false,
};

/** One window with one page. What both browsers can do, and what was said on the console. */
class Page {
  #page;
  #browser;
  #close;

  constructor(browser, page, name, close) {
    this.#page = page;
    this.#browser = browser;
    this.#close = close;
    this.name = name;
    this.kind = browser.kind;
    this.console = [];
    const say = (kind, text) => {
      if (this.console.length < 5000) this.console.push(`${(performance.now() / 1000).toFixed(3)} ${kind}: ${text}`);
    };
    page.on('console', (message) => say(message.type(), message.text()));
    page.on('pageerror', (error) => say('error', error.stack ?? String(error)));
    page.on('requestfailed', (request) => say('request failed', `${request.url()} ${request.failure()?.errorText ?? ''}`));
    page.on('crash', () => say('crash', 'the renderer is gone'));
  }

  /** The driver's own page, for what only one browser can do. */
  get driver() {
    return this.#page;
  }

  goto(url) {
    return this.#page.goto(url, { waitUntil: 'load', timeout: 30_000 });
  }

  reload() {
    return this.#page.reload({ waitUntil: 'load', timeout: 30_000 });
  }

  /** Runs a function with one argument in the page; both go there as text, so nothing outside is in reach. */
  evaluate(fn, argument) {
    return argument === undefined ? this.#page.evaluate(fn) : this.#page.evaluate(fn, argument);
  }

  /** Calls one of the instruments. */
  instrument(name, ...args) {
    return this.#page.evaluate(([name, args]) => window.instruments[name](...args), [name, args]);
  }

  click(selector) {
    return this.#page.click(selector);
  }

  async type(selector, text) {
    if (this.kind === 'chromium') await this.#page.fill(selector, text);
    else await this.#page.locator(selector).fill(text);
  }

  async resize({ width, height }) {
    if (this.kind === 'chromium') await this.#page.setViewportSize({ width, height });
    else await this.#page.setViewport({ width, height });
  }

  /** Light or dark, as the person's system would have it. */
  async prefer(scheme) {
    if (this.kind === 'chromium') await this.#page.emulateMedia({ colorScheme: scheme });
    else throw new Error('only Chromium can be told a colour scheme while it runs');
  }

  screenshot(path) {
    return this.#page.screenshot({ path, timeout: 20_000 });
  }

  /** The window is closed as a person would: the page's own pagehide handlers run. */
  async close() {
    await this.#close();
  }

  /** The renderer dies without a word, as in a crash or when the system kills it. */
  async kill() {
    if (this.kind !== 'chromium') throw new Error('kill the whole browser instead: Firefox has no command for this');
    const session = await this.#page.context().newCDPSession(this.#page);
    // The command itself is never answered: its renderer is gone.
    session.send('Page.crash').catch(() => {});
    await new Promise((done) => this.#page.once('crash', done));
  }

  toString() {
    return `${this.name} (${this.kind})`;
  }
}

/** A running browser. Each page has a window and a storage of its own: a hidden tab would draw no frame. */
class Browser {
  pages = [];

  constructor(kind, driver, newWindow, stop) {
    Object.assign(this, { kind, driver, newWindow, stop });
  }

  /** Opens a window on `url`; the instruments are in place before the page's first script. */
  async open(url, { name = `${this.kind}-${this.pages.length}`, instruments = true, ...options } = {}) {
    const { page, close } = await this.newWindow(options);
    const opened = new Page(this, page, name, async () => {
      this.pages = this.pages.filter((other) => other !== opened);
      await close();
    });
    this.pages.push(opened);
    if (instruments) {
      if (this.kind === 'chromium') await page.addInitScript({ content: INSTRUMENTS });
      else await page.evaluateOnNewDocument(new Function(INSTRUMENTS));
    }
    if (url && new URL(url).pathname === BLANK) await serveBlank(this.kind, page);
    if (url) await opened.goto(url);
    return opened;
  }

  async close() {
    this.pages = [];
    await this.stop();
  }

  /** The process id of the browser. */
  get pid() {
    return this.driver.process?.()?.pid;
  }
}

function present(path, name) {
  if (!existsSync(path)) throw new Error(`${name} is not installed at ${path}: these tests never skip a browser`);
}

/**
 * @param {object} options
 * @param {boolean} [options.devices] fake camera and microphone, allowed without a question
 * @param {boolean} [options.realAddresses] host candidates show addresses, not mDNS names (where two browsers meet directly)
 */
export async function chromium({ devices = false, realAddresses = false } = {}) {
  present(CHROMIUM, 'Chromium');
  const { chromium: driver } = await import('playwright-core');
  const flags = [...CHROMIUM_FLAGS];
  // 720p of four members in three layers each are more than two cores can encode at 30 frames.
  if (devices) flags.push(`--use-fake-device-for-media-stream=fps=${DEVICE_FPS}`);
  // The blank page is answered by the test itself, so Chromium does not know that it belongs to this machine, and would
  // not let it talk to the server here.
  const off = ['LocalNetworkAccessChecks', 'LocalNetworkAccessChecksWebSockets', 'LocalNetworkAccessChecksWebRTC'];
  if (realAddresses) off.push('WebRtcHideLocalIpsWithMdns');
  flags.push(`--disable-features=${off.join(',')}`);
  const browser = await driver.launch({ executablePath: CHROMIUM, headless: true, args: flags, timeout: 60_000,
    chromiumSandbox: false });
  const newWindow = async ({ permissions = devices ? ['camera', 'microphone'] : [], viewport = { width: 900, height: 600 } }) => {
    const context = await browser.newContext({ viewport, permissions, ignoreHTTPSErrors: true });
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    return { page, close: async () => {
      await page.close();
      await context.close();
    } };
  };
  return new Browser('chromium', browser, newWindow, () => browser.close());
}

/** Options as for `chromium`; `deny: ['microphone', 'camera']`: every request for these is refused without a question. */
export async function firefox({ devices = false, realAddresses = false, deny = [] } = {}) {
  present(FIREFOX, 'Firefox');
  const { default: driver } = await import('puppeteer-core');
  const preferences = { ...FIREFOX_PREFERENCES };
  if (devices) Object.assign(preferences, { 'media.navigator.streams.fake': true, 'media.navigator.permission.disabled': deny.length === 0,
    'media.navigator.video.default_fps': DEVICE_FPS });
  for (const device of deny) preferences[`permissions.default.${device}`] = 2;
  if (realAddresses) preferences['media.peerconnection.ice.obfuscate_host_addresses'] = false;
  const browser = await driver.launch({ browser: 'firefox', executablePath: FIREFOX, headless: true, extraPrefsFirefox: preferences,
    timeout: 90_000, protocolTimeout: 60_000, acceptInsecureCerts: true });
  const newWindow = async ({ viewport = { width: 900, height: 600 } }) => {
    const context = await browser.createBrowserContext();
    const page = await context.newPage({ type: 'window' });
    page.setDefaultTimeout(20_000);
    await page.setViewport(viewport);
    return { page, close: async () => {
      await page.close();
      await context.close().catch(() => {});
    } };
  };
  return new Browser('firefox', browser, newWindow, () => browser.close());
}

export const launch = { chromium, firefox };
