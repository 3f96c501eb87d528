// The page around a call: a lobby, tiles, three buttons. It uses only what motet.js offers to everybody.

import { ChatPanel } from "./chat-panel.js";
import { MotetError, join, openDevices } from "./motet.js";

/** @import { LocalMedia, OpenedDevices, Participant, Room } from "./types.d.ts" */

/**
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
function element(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new TypeError(`no ${type.name} #${id}`);
  return found;
}

const view = {
  lobby: element("lobby", HTMLElement),
  call: element("call", HTMLElement),
  left: element("left", HTMLElement),
};
const lobby = {
  form: element("join-form", HTMLFormElement),
  name: element("name", HTMLInputElement),
  join: element("join", HTMLButtonElement),
  error: element("lobby-error", HTMLElement),
  preview: element("preview", HTMLVideoElement),
  note: element("preview-note", HTMLElement),
  microphone: element("preview-microphone", HTMLButtonElement),
  camera: element("preview-camera", HTMLButtonElement),
};
const call = {
  state: element("state", HTMLElement),
  notice: element("notice", HTMLElement),
  tiles: element("tiles", HTMLElement),
  alone: element("alone", HTMLElement),
  announcements: element("announcements", HTMLElement),
  copy: element("copy", HTMLButtonElement),
  play: element("play", HTMLButtonElement),
  microphone: element("microphone", HTMLButtonElement),
  camera: element("camera", HTMLButtonElement),
  leave: element("leave", HTMLButtonElement),
};
const left = {
  title: element("left-title", HTMLElement),
  reason: element("left-reason", HTMLElement),
  again: element("rejoin", HTMLButtonElement),
};

const chat = new ChatPanel({
  button: element("chat-button", HTMLButtonElement),
  unread: element("chat-unread", HTMLElement),
  panel: element("chat", HTMLElement),
  close: element("chat-close", HTMLButtonElement),
  list: element("chat-list", HTMLElement),
  typing: element("chat-typing", HTMLElement),
  form: element("chat-form", HTMLFormElement),
  field: element("chat-field", HTMLTextAreaElement),
  problem: element("chat-problem", HTMLElement),
});

/** @type {Room | null} */ let room = null;
/** @type {Map<Participant, Tile>} */ const tiles = new Map();
const roomId = roomFromAddress();

/** @param {keyof typeof view} name */
function show(name) {
  for (const [key, part] of Object.entries(view)) part.hidden = key !== name;
  document.title = name === "call" ? `${roomId} · Motet` : "Motet";
}

// The room's name

/** @returns {string} the room of the address; a new one is put there, so that the address can be shared */
function roomFromAddress() {
  const address = new URL(location.href);
  const given = address.searchParams.get("room")?.trim();
  if (given) return roomIdOf(given);
  const made = randomRoom();
  address.searchParams.set("room", made);
  history.replaceState(null, "", address);
  return made;
}

/** Anything a person may type becomes a valid id: other characters are percent-encoded. @param {string} text */
function roomIdOf(text) {
  return encodeURIComponent(text.normalize("NFC")).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** Easy to say on the telephone, hard to guess: 32 × 32 × 10 000 000 rooms. */
function randomRoom() {
  const first = ("amber brave bright calm clear cosy eager early fair fine free fresh gentle glad golden grand green "
    + "happy high kind light lively lucky merry mild new noble open proud quick quiet warm").split(" ");
  const second = ("alto bell brook choir cello chord clef coda dance drum fern finch flute forest garden harp hill "
    + "horn lake lark lute maple meadow oboe organ piano river song sparrow tune viola willow").split(" ");
  const [a = 0, b = 0, c = 0] = crypto.getRandomValues(new Uint32Array(3));
  return `${first[a % first.length]}-${second[b % second.length]}-${String(c % 10_000_000).padStart(7, "0")}`;
}

/** @param {string} id */
function readable(id) {
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}

// Lobby

/** @type {OpenedDevices} */ let devices = { camera: null, microphone: null, errors: {} };
/** What the person wants. */ const wanted = { camera: true, microphone: true };
/** Devices that the browser is still opening: it may be asking the person. @type {Promise<OpenedDevices> | null} */ let opening = null;

function openLobby() {
  show("lobby");
  lobby.name.value = stored("name") ?? "";
  if (!lobby.name.value) lobby.name.focus();
  lobby.error.hidden = true;
  void prepareDevices();
}

async function prepareDevices() {
  void opening?.then(closeDevices);
  lobby.note.textContent = wanted.camera || wanted.microphone ? "Asking for your camera and microphone…" : "";
  const mine = openDevices(wanted);
  opening = mine;
  const opened = await mine;
  if (opening !== mine) return; // whoever took it over closes it
  opening = null;
  devices = opened;
  showDevices();
}

/** @param {OpenedDevices} opened */
function closeDevices({ camera, microphone }) {
  camera?.stop();
  microphone?.stop();
}

function showDevices() {
  const { camera, microphone, errors } = devices;
  lobby.preview.srcObject = camera ? new MediaStream([camera]) : null;
  const problems = [];
  const alike = errors.camera?.reason === errors.microphone?.reason;
  if (errors.microphone) problems.push(`${alike ? "Camera and microphone" : "Microphone"}: ${errors.microphone.hint}`);
  if (errors.camera && !alike) problems.push(`Camera: ${errors.camera.hint}`);
  if (problems.length > 0) problems.push("You can join all the same.");
  lobby.note.textContent = problems.join(" ") || (camera ? "" : "Your camera is off.");
  pressed(lobby.camera, camera !== null, "camera");
  pressed(lobby.microphone, microphone !== null, "microphone");
  lobby.camera.disabled = false;
  lobby.microphone.disabled = false;
}

/** @param {"camera" | "microphone"} source */
async function toggleInLobby(source) {
  if (opening) return; // one question at a time
  const open = devices[source];
  delete devices.errors[source];
  wanted[source] = open === null;
  if (open) {
    open.stop();
    devices[source] = null;
  } else {
    const mine = openDevices({ [source]: true });
    opening = mine;
    // Not disabled meanwhile: that would take the keyboard's focus away.
    lobby[source].setAttribute("aria-busy", "true");
    const opened = await mine;
    lobby[source].removeAttribute("aria-busy");
    if (opening !== mine) return; // whoever took it over closes it
    opening = null;
    devices[source] = opened[source];
    Object.assign(devices.errors, opened.errors);
  }
  showDevices();
}

/** @param {SubmitEvent} event */
async function submit(event) {
  event.preventDefault();
  const name = lobby.name.value.trim();
  store("name", name);
  lobby.join.disabled = true;
  lobby.join.textContent = "Joining…";
  lobby.error.hidden = true;
  const { camera, microphone } = devices;
  // From here on they belong to the room; also those that open only later, because the person was still being asked.
  const late = opening;
  opening = null;
  devices = { camera: null, microphone: null, errors: {} };
  try {
    room = await join(new URL(".", location.href), {
      room: roomId, name, camera: camera ?? false, microphone: microphone ?? false,
    });
    const entered = room;
    enter(entered);
    void late?.then((opened) => takeLate(entered, opened));
  } catch (error) {
    void late?.then(closeDevices);
    lobby.error.textContent = error instanceof MotetError ? error.hint : "The call could not be joined.";
    lobby.error.hidden = false;
    void prepareDevices();
    console.error(error);
  } finally {
    lobby.join.disabled = false;
    lobby.join.textContent = "Join the call";
  }
}

// Call

/** What was turned on or off by its button in this call. @type {Set<"camera" | "microphone">} */ const decided = new Set();

/** @param {Room} entered */
function enter(entered) {
  show("call");
  lobby.preview.srcObject = null;
  state("Connected");
  notice("");
  decided.clear();
  for (const participant of entered.participants.values()) addTile(participant);
  showMedia(entered.camera);
  showMedia(entered.microphone);
  chat.enter(entered);

  entered.addEventListener("participantjoined", ({ detail }) => {
    addTile(detail.participant);
    announce(`${detail.participant.name} joined`);
  });
  entered.addEventListener("participantleft", ({ detail }) => {
    removeTile(detail.participant);
    announce(`${detail.participant.name} left`);
  });
  entered.addEventListener("participantchanged", ({ detail }) => tileOf(detail.participant)?.update());
  for (const type of /** @type {const} */ (["publicationadded", "publicationchanged", "publicationremoved"])) {
    entered.addEventListener(type, ({ detail }) => tileOf(detail.participant)?.update());
  }
  entered.addEventListener("speakerschanged", () => {
    for (const [participant, tile] of tiles) tile.speaks(participant.speaking);
  });
  entered.addEventListener("mediachanged", ({ detail }) => showMedia(detail.media));
  entered.addEventListener("reconnecting", () => state("Reconnecting…"));
  entered.addEventListener("reconnected", () => state("Connected"));
  entered.addEventListener("playbackblocked", () => { call.play.hidden = false; });
  entered.addEventListener("error", ({ detail }) => notice(detail.error.hint));
  entered.addEventListener("closed", ({ detail }) => ended(detail.error));
  call.microphone.focus();
}

/**
 * The person allowed them only after joining. Whoever pressed a button meanwhile has decided already.
 * @param {Room} entered @param {OpenedDevices} opened
 */
async function takeLate(entered, { camera, microphone, errors }) {
  const fits = (/** @type {"camera" | "microphone"} */ source) => room === entered && entered[source].state === "off" && !decided.has(source);
  if (camera && fits("camera")) await entered.setCamera(camera);
  else camera?.stop();
  if (microphone && fits("microphone")) await entered.setMicrophone(microphone);
  else microphone?.stop();
  const problem = errors.microphone ?? errors.camera;
  if (problem && room === entered) notice(problem.hint);
}

/** @param {MotetError | null} error */
function ended(error) {
  for (const tile of tiles.values()) tile.remove();
  tiles.clear();
  room = null;
  chat.leave();
  left.title.textContent = error ? "The call ended" : "You left the call";
  left.reason.textContent = error ? error.hint : `The room ${readable(roomId)} is still open to you.`;
  show("left");
  left.title.focus();
}

/** @param {string} text */
function state(text) {
  call.state.textContent = text;
}

/** @param {string} text */
function notice(text) {
  call.notice.textContent = text;
  call.notice.hidden = text === "";
}

/** @param {string} text for those who listen to the page */
function announce(text) {
  call.announcements.textContent = text;
}

/** @param {LocalMedia} media */
function showMedia(media) {
  const source = media.source === "camera" ? "camera" : "microphone";
  pressed(call[source], media.state !== "off", source);
  call[source].setAttribute("aria-busy", String(media.state === "starting"));
  if (media.error) notice(media.error.hint);
  else if (media.on) notice("");
  if (room) tileOf(room.me)?.update();
}

/** @param {HTMLButtonElement} button @param {boolean} on @param {"camera" | "microphone"} source */
function pressed(button, on, source) {
  button.setAttribute("aria-pressed", String(on));
  button.title = on ? `Turn the ${source} off` : `Turn the ${source} on`;
  const icon = button.querySelector("use");
  icon?.setAttribute("href", `#icon-${source}${on ? "" : "-off"}`);
}

/** @param {"camera" | "microphone"} source */
async function toggle(source) {
  if (!room) return;
  decided.add(source);
  const media = room[source];
  const set = source === "camera" ? room.setCamera : room.setMicrophone;
  try {
    await set.call(room, media.state === "off");
  } catch (error) {
    if (error instanceof MotetError) notice(error.hint);
    else throw error;
  }
}

// Tiles

class Tile {
  /** @type {Participant} */ #participant;
  /** @type {HTMLElement} */ #root;
  /** @type {HTMLVideoElement} */ #picture;
  /** @type {Participant["camera"]} */ #shown = null;

  /** @param {Participant} participant */
  constructor(participant) {
    this.#participant = participant;
    const content = /** @type {DocumentFragment} */ (element("tile", HTMLTemplateElement).content.cloneNode(true));
    this.#root = /** @type {HTMLElement} */ (content.querySelector(".tile"));
    this.#picture = /** @type {HTMLVideoElement} */ (content.querySelector(".picture"));
    this.#picture.classList.toggle("mirrored", participant.isMe);
    call.tiles.append(content);
    this.update();
  }

  update() {
    const { name, away, isMe, camera, microphone } = this.#participant;
    const label = name || "Guest";
    this.#root.setAttribute("aria-label", isMe ? `${label} (you)` : label);
    this.#root.classList.toggle("away", away);
    this.#root.dataset.participant = this.#participant.id;
    this.#text(".name", label);
    this.#text(".note", away ? "offline" : isMe ? "you" : "");
    this.#text(".initial", [...label][0]?.toUpperCase() ?? "");
    const silent = microphone === null || microphone.muted;
    this.#root.querySelector(".muted-icon")?.toggleAttribute("hidden", !silent);
    if (camera === this.#shown) return;
    this.#shown?.detach(this.#picture);
    this.#shown = camera;
    camera?.attach(this.#picture);
  }

  /** @param {boolean} speaking */
  speaks(speaking) {
    this.#root.classList.toggle("speaking", speaking);
  }

  /** @param {string} selector @param {string} text */
  #text(selector, text) {
    const part = this.#root.querySelector(selector);
    if (part && part.textContent !== text) part.textContent = text;
  }

  remove() {
    this.#shown?.detach(this.#picture);
    this.#root.remove();
  }
}

/** @param {Participant} participant */
function addTile(participant) {
  if (tileOf(participant)) return;
  tiles.set(participant, new Tile(participant));
  countTiles();
}

/** @param {Participant} participant */
function removeTile(participant) {
  tileOf(participant)?.remove();
  tiles.delete(participant);
  countTiles();
}

/** @param {Participant} participant */
function tileOf(participant) {
  return tiles.get(participant);
}

function countTiles() {
  call.alone.hidden = tiles.size !== 1;
  call.tiles.dataset.count = tiles.size > 9 ? "many" : String(tiles.size);
}

// Small things

/** Storage is forbidden to some pages, and nothing here depends on it. @param {string} key */
function stored(key) {
  try {
    return localStorage.getItem(`motet.${key}`);
  } catch {
    return null;
  }
}

/** @param {string} key @param {string} value */
function store(key, value) {
  try {
    localStorage.setItem(`motet.${key}`, value);
  } catch {
    // see above
  }
}

async function copyLink() {
  const label = call.copy.querySelector("span");
  try {
    await navigator.clipboard.writeText(location.href);
    if (label) label.textContent = "Link copied";
    announce("Link copied");
  } catch {
    notice(`Copy the address from here: ${location.href}`);
  }
  setTimeout(() => { if (label) label.textContent = "Copy link"; }, 2000);
}

lobby.form.addEventListener("submit", submit);
lobby.microphone.addEventListener("click", () => toggleInLobby("microphone"));
lobby.camera.addEventListener("click", () => toggleInLobby("camera"));
call.microphone.addEventListener("click", () => toggle("microphone"));
call.camera.addEventListener("click", () => toggle("camera"));
call.leave.addEventListener("click", () => room?.leave());
call.copy.addEventListener("click", copyLink);
call.play.addEventListener("click", async () => {
  await room?.resumePlayback();
  call.play.hidden = true;
});
left.again.addEventListener("click", () => {
  openLobby();
  if (lobby.name.value) lobby.join.focus();
});
element("lobby-room", HTMLElement).textContent = readable(roomId);
element("call-room", HTMLElement).textContent = readable(roomId);
openLobby();
