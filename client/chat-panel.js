// The chat beside the tiles: what was said, a field to say something, and how much came while it was closed.

import { MotetError } from "./motet.js";

/** @import { ChatMessage, Participant, Room } from "./types.d.ts" */

/**
 * @typedef {object} Parts
 * @property {HTMLButtonElement} button opens and closes the panel
 * @property {HTMLElement} unread on the button
 * @property {HTMLElement} panel
 * @property {HTMLButtonElement} close
 * @property {HTMLElement} list
 * @property {HTMLElement} typing
 * @property {HTMLFormElement} form
 * @property {HTMLTextAreaElement} field
 * @property {HTMLElement} problem
 */

/** ms that somebody who writes is shown after the last hint. */
const TYPING_FOR = 5000;
/** Distance from the end, in pixels, at which a reader is taken to follow what comes. */
const AT_END = 40;
/** Lines shown at once; the room remembers more than a page should hold. */
const MOST_LINES = 500;
const LINK = /\bhttps?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]}]/gu;

export class ChatPanel {
  /** @type {Parts} */ #parts;
  /** @type {Room | null} */ #room = null;
  #unread = 0;
  /** Who writes, and until when that is shown. @type {Map<Participant, ReturnType<typeof setTimeout>>} */ #writing = new Map();

  /** @param {Parts} parts */
  constructor(parts) {
    this.#parts = parts;
    const { button, close, form, field, panel } = parts;
    button.addEventListener("click", () => this.#open(panel.hidden === true));
    close.addEventListener("click", () => this.#open(false));
    panel.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#open(false);
    });
    field.addEventListener("keydown", (event) => {
      // Enter sends; with Shift, or while a word is being composed, it does not.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    field.addEventListener("input", () => {
      if (field.value !== "") this.#room?.chat.typing();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#say();
    });
  }

  /** @param {Room} room */
  enter(room) {
    this.#room = room;
    this.#parts.list.replaceChildren();
    for (const message of room.chat.messages) this.#add(message);
    this.#count(0);
    room.addEventListener("chat", ({ detail: { message, participant } }) => {
      if (participant) this.#stopsWriting(participant);
      this.#add(message);
      if (!message.mine && this.#parts.panel.hidden) this.#count(this.#unread + 1);
    });
    room.addEventListener("typing", ({ detail }) => this.#writes(detail.participant));
    room.addEventListener("participantleft", ({ detail }) => this.#stopsWriting(detail.participant));
  }

  leave() {
    this.#room = null;
    for (const timer of this.#writing.values()) clearTimeout(timer);
    this.#writing.clear();
    this.#showWriting();
    this.#open(false);
  }

  /** @param {boolean} open */
  #open(open) {
    const { button, panel, field, list } = this.#parts;
    if (panel.hidden === !open) return;
    panel.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
    if (open) {
      this.#count(0);
      list.scrollTop = list.scrollHeight;
      field.focus();
    } else if (this.#room) {
      button.focus();
    }
  }

  async #say() {
    const { field, problem } = this.#parts;
    const text = field.value.trim();
    if (!this.#room || text === "") return;
    field.value = "";
    problem.hidden = true;
    try {
      await this.#room.chat.send(text);
    } catch (error) {
      problem.textContent = error instanceof MotetError ? error.hint : "The message was not sent.";
      problem.hidden = false;
      // What was written is not lost, unless something else was begun meanwhile.
      if (field.value === "") field.value = text;
    }
  }

  /** @param {ChatMessage} message */
  #add(message) {
    const { list } = this.#parts;
    const follows = list.scrollHeight - list.scrollTop - list.clientHeight < AT_END;
    const line = document.createElement("li");
    line.className = message.mine ? "said mine" : "said";
    const head = document.createElement("p");
    head.className = "said-by";
    // A name or text in another direction does not rearrange what stands beside it.
    const name = document.createElement("bdi");
    name.textContent = message.mine ? "You" : message.name || "Someone";
    const time = document.createElement("time");
    time.dateTime = message.at.toISOString();
    time.textContent = message.at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    head.append(name, message.to === null ? "" : " (private)", " ", time);
    const text = document.createElement("p");
    text.className = "said-text";
    text.dir = "auto";
    text.append(...withLinks(message.text));
    line.append(head, text);
    list.append(line);
    while (list.childElementCount > MOST_LINES) list.firstElementChild?.remove();
    if (follows || message.mine) list.scrollTop = list.scrollHeight;
  }

  /** @param {number} unread */
  #count(unread) {
    const { button, unread: badge } = this.#parts;
    this.#unread = unread;
    badge.hidden = unread === 0;
    badge.textContent = unread > 99 ? "99+" : String(unread);
    button.setAttribute("aria-label", unread === 0 ? "Chat" : `Chat, ${unread} unread`);
  }

  /** @param {Participant} participant */
  #writes(participant) {
    clearTimeout(this.#writing.get(participant));
    this.#writing.set(participant, setTimeout(() => this.#stopsWriting(participant), TYPING_FOR));
    this.#showWriting();
  }

  /** @param {Participant} participant */
  #stopsWriting(participant) {
    clearTimeout(this.#writing.get(participant));
    if (this.#writing.delete(participant)) this.#showWriting();
  }

  #showWriting() {
    const names = [...this.#writing.keys()].map(({ name }) => name || "Someone");
    const { typing } = this.#parts;
    if (names.length === 0) typing.textContent = "";
    else typing.textContent = names.length > 2 ? "Several people are writing…" : `${names.join(" and ")} ${names.length > 1 ? "are" : "is"} writing…`;
  }
}

/** Addresses become links, and nothing else becomes anything. @param {string} text @returns {(string | HTMLElement)[]} */
function withLinks(text) {
  /** @type {(string | HTMLElement)[]} */
  const parts = [];
  let end = 0;
  for (const { 0: address, index } of text.matchAll(LINK)) {
    const link = document.createElement("a");
    link.href = address;
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
    link.textContent = address;
    parts.push(text.slice(end, index), link);
    end = index + address.length;
  }
  parts.push(text.slice(end));
  return parts;
}
