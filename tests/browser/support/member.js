// A member of a call: a window with the tests' own page, in the room through the public API of /motet.js, with its own numbered
// picture and its own tone. Members are told apart by a number from 0 to 7, which is also their name: "member 3".

import { BLANK } from './browsers.js';
import { until } from './wait.js';

/** In the page: joins, and shows and hears everybody else under the keys `camera:<n>` and `microphone:<n>`. */
async function enter({ room: id, number, picture, tone, devices, track }) {
  const { instruments } = window;
  const { join } = await import('/motet.js');
  const events = [];
  const elements = new Map();
  const started = performance.now();
  const say = (what, detail = {}) => {
    if (events.length < 1000) events.push({ at: Math.round(performance.now()), what, ...detail });
  };
  const options = { room: id, name: `member ${number}` };
  if (devices) Object.assign(options, { camera: devices.camera ?? false, microphone: devices.microphone ?? false });
  if (picture) options.camera = instruments.picture({ member: number, ...picture });
  if (tone) options.microphone = await instruments.tone({ member: number, ...tone });
  const ready = performance.now();
  const room = await join(new URL('/', location.href), options);
  const joined = performance.now();

  const keyOf = (participant, publication) => `${publication.source}:${/(\d+)$/.exec(participant.name)?.[1] ?? participant.id}`;
  function show(participant, publication) {
    if (participant.isMe) return;
    const key = keyOf(participant, publication);
    if (publication.kind === 'audio') {
      if (publication.track) instruments.listen(key, publication.track);
      return;
    }
    if (elements.has(publication.id)) return;
    const video = document.createElement('video');
    // The size at which it is shown decides which layer is asked for: the picture's own.
    video.style.cssText = `width:${track?.width ?? 320}px;height:${track?.height ?? 180}px;object-fit:fill`;
    document.body.append(video);
    publication.attach(video);
    instruments.watch(key, video);
    elements.set(publication.id, { key, video });
  }
  function hide(participant, publication) {
    const element = elements.get(publication.id);
    elements.delete(publication.id);
    if (publication.kind === 'audio') instruments.unlisten(keyOf(participant, publication));
    if (!element) return;
    publication.detach(element.video);
    instruments.unwatch(element.key);
    element.video.remove();
  }
  const all = () => {
    for (const participant of room.participants.values()) {
      for (const publication of participant.publications.values()) show(participant, publication);
    }
  };
  for (const type of ['participantjoined', 'participantleft', 'participantchanged', 'publicationadded', 'publicationchanged', 'publicationremoved',
    'mediachanged', 'speakerschanged', 'reconnecting', 'reconnected', 'playbackblocked', 'error', 'closed']) {
    room.addEventListener(type, ({ detail }) => {
      const { participant, publication, media, error, reason, speakers } = detail ?? {};
      say(type, {
        ...(participant && { who: participant.name }),
        ...(publication && { source: publication.source, muted: publication.muted, visible: publication.visible }),
        ...(media && { source: media.source, state: media.state }),
        ...(speakers && { speakers: speakers.map(({ name }) => name) }),
        ...(error && { reason: error.reason }), ...(reason && { reason }),
      });
      if (type === 'publicationremoved') hide(participant, publication);
      else if (type.startsWith('publication')) show(participant, publication);
      else if (type !== 'closed') all();
    });
  }
  all();

  window.member = {
    room, events, number,
    element: (shownKey) => [...elements.values()].find(({ key }) => key === shownKey)?.video,
    /** How large a picture is shown; not at all: detached. */
    size: (shownKey, width, height) => {
      for (const [id, { key, video }] of elements) {
        if (key !== shownKey) continue;
        const publication = [...room.participants.values()].map(({ publications }) => publications.get(id)).find(Boolean);
        if (!width) publication.detach(video);
        else publication.attach(video);
        Object.assign(video.style, { width: `${width}px`, height: `${height}px` });
      }
    },
    report: () => ({
      state: room.state, total: room.total, number, id: room.me?.id,
      speakers: room.speakers.map(({ name }) => name),
      camera: room.camera.state, microphone: room.microphone.state,
      lamp: room.camera.track?.readyState ?? 'none',
      participants: [...room.participants.values()].map((participant) => ({
        id: participant.id, name: participant.name, away: participant.away, isMe: participant.isMe,
        publications: [...participant.publications.values()].map(({ id: publication, source, kind, muted, visible, layer, why, track: arriving }) =>
          ({ id: publication, source, kind, muted, visible, layer, why, track: Boolean(arriving) })),
      })),
      events,
    }),
  };
  return { ready: ready - started, join: joined - ready };
}

export class Member {
  /**
   * @param {import('./browsers.js').Browser} browser
   * @param {object} options
   * @param {string} options.origin the server
   * @param {string} options.room
   * @param {number} options.number 0…7
   * @param {object | false} [options.picture] `{ width, height, fps }`
   * @param {object | false} [options.tone]
   * @param {{ camera?: boolean, microphone?: boolean }} [options.devices] the browser's own devices instead
   * @param {(page) => Promise<void>} [options.before] before it joins
   */
  static async join(browser, options) {
    const member = new Member();
    Object.assign(member, { number: options.number, kind: browser.kind, options });
    member.page = await browser.open(`${options.origin}${BLANK}`, { name: `member-${options.number}-${browser.kind}`,
      viewport: options.viewport ?? { width: 1020, height: 640 } });
    await options.before?.(member.page);
    await member.enter();
    return member;
  }

  /** Joins with the page as it is: also after a reload. */
  async enter(changes = {}) {
    const { room, number, picture = {}, tone = {}, devices, track } = { ...this.options, ...changes };
    const shape = { track, picture: picture && { width: track?.width, height: track?.height, ...picture } };
    for (const key of ['width', 'height']) if (shape.picture && shape.picture[key] === undefined) delete shape.picture[key];
    this.took = await this.page.evaluate(enter, { room, number, tone, devices, ...shape });
  }

  /** The room as this member's client sees it. */
  report() {
    return this.page.evaluate(() => window.member.report());
  }

  /** What `other`'s picture looks like here. */
  look(other) {
    return this.page.instrument('look', `camera:${other.number ?? other}`);
  }

  /** What `other`'s microphone sounds like here. */
  hear(other) {
    return this.page.instrument('hear', `microphone:${other.number ?? other}`);
  }

  /** Frames of `other` shown since `mark`, and the longest gap between them in ms. */
  frames(other) {
    return this.page.instrument('frames', `camera:${other.number ?? other}`);
  }

  mark(other) {
    return this.page.instrument('mark', `camera:${other.number ?? other}`);
  }

  /** Shows `other`'s picture at another size; 0: not at all. */
  show(other, width, height) {
    return this.page.evaluate(([key, w, h]) => window.member.size(key, w, h), [`camera:${other.number ?? other}`, width, height]);
  }

  inbound() {
    return this.page.instrument('streams', 'inbound-rtp');
  }

  outbound() {
    return this.page.instrument('streams', 'outbound-rtp');
  }

  connection() {
    return this.page.instrument('connection');
  }

  setCamera(choice) {
    return this.page.evaluate((wish) => window.member.room.setCamera(wish), choice);
  }

  /** The camera on again with the made-up picture. */
  showPicture(picture = {}) {
    return this.page.evaluate(([number, shape]) => window.member.room.setCamera(window.instruments.picture({ member: number, ...shape })),
      [this.number, picture]);
  }

  setMicrophone(choice) {
    return this.page.evaluate((wish) => window.member.room.setMicrophone(wish), choice);
  }

  leave() {
    return this.page.evaluate(() => window.member.room.leave());
  }

  /** Waits until `other`'s own picture is shown here, and returns what is seen. */
  sees(other, options) {
    return until(`${this} sees ${other}`, async () => {
      const look = await this.look(other);
      return { ok: look.member !== null, ...look };
    }, options);
  }

  /** Waits until `other`'s picture here shows a frame it did not show before. */
  async seesMore(other, options) {
    const { frame } = await this.look(other);
    return until(`${other}'s picture moves on at ${this}`, async () => {
      const look = await this.look(other);
      return { ok: look.member === other.number && look.frame !== frame, ...look };
    }, options);
  }

  /** Waits until something is heard of `other` here, and returns what. */
  hears(other, options) {
    return until(`${this} hears ${other}`, async () => {
      const hear = await this.hear(other);
      return { ok: hear.member !== null, ...hear };
    }, options);
  }

  /** Waits until there are exactly these members besides this one. */
  meets(others, options) {
    const names = others.map((other) => `member ${other.number ?? other}`).sort();
    return until(`${this} meets ${names.join(', ') || 'nobody'}`, async () => {
      const { participants } = await this.report();
      const present = participants.filter(({ isMe }) => !isMe).map(({ name }) => name).sort();
      return { ok: JSON.stringify(present) === JSON.stringify(names), present };
    }, options);
  }

  async close() {
    await this.page.close();
  }

  toString() {
    return `member ${this.number} (${this.kind})`;
  }
}
