// Who is in the room and what they publish, kept by snapshots and by the numbered changes between them.

import { Participant, Publication } from "./participant.js";

/** @import { ParticipantId, ParticipantInfo, PublicationId, PublicationInfo, RoomDelta, Snapshot, Source } from "./protocol.d.ts" */
/** @import { RoomEventMap } from "./types.d.ts" */

/**
 * @typedef {object} RosterHost
 * @property {<K extends keyof RoomEventMap>(type: K, detail: RoomEventMap[K]["detail"]) => void} emit
 * @property {(source: Source) => boolean | undefined} muted of one's own tracks: the button is ahead of the server's echo
 * @property {(publication: Publication) => void} published it is new, or was stated again
 * @property {(publication: Publication) => void} ended
 * @property {(publication: Publication, element: HTMLMediaElement, attached: boolean) => void} attached
 */

export class Roster {
  /** @readonly @type {Participant} */ me;
  /** @type {Map<ParticipantId, Participant>} */ participants = new Map();
  total = 0;
  #rev = 0;
  /** Who speaks, the dominant one first; perhaps some whom we were not told of. @type {ParticipantId[]} */ #speaking = [];
  /** @type {RosterHost} */ #host;

  /** @param {string} name @param {RosterHost} host */
  constructor(name, host) {
    this.me = new Participant({ id: "", name }, true);
    this.#host = host;
  }

  /**
   * A new session began. One remains the same participant to the page, under whatever id.
   * @param {ParticipantId} you
   * @param {Pick<Snapshot, "room" | "participants" | "publications">} snapshot
   */
  enter(you, snapshot) {
    this.participants.delete(this.me.id);
    this.me.id = you;
    this.participants.set(you, this.me);
    if (this.#speaking.length > 0) this.speak([]);
    this.snapshot(snapshot);
  }

  /** Everything anew: whatever it does not name is gone. @param {Pick<Snapshot, "room" | "participants" | "publications">} snapshot */
  snapshot({ room, participants, publications }) {
    this.#rev = room.rev;
    this.total = room.total;
    const present = new Set(participants.map(({ id }) => id));
    for (const id of [...this.participants.keys()]) {
      if (!present.has(id)) this.#removeParticipant(id, "silent");
    }
    const published = new Set(publications.map(({ id }) => id));
    for (const { id } of this.publications()) {
      if (!published.has(id)) this.#removePublication(id);
    }
    for (const info of participants) this.#upsertParticipant(info);
    for (const info of publications) this.#upsertPublication(info);
  }

  /** @param {RoomDelta} delta */
  delta(delta) {
    if (delta.rev <= this.#rev) return; // the snapshot already holds it
    this.#rev = delta.rev;
    this.total = delta.total;
    for (const id of delta.unpublished ?? []) this.#removePublication(id);
    for (const { id, reason } of delta.left ?? []) this.#removeParticipant(id, reason);
    for (const info of delta.joined ?? []) this.#upsertParticipant(info);
    for (const info of delta.changed ?? []) {
      // In big rooms not everybody is named to everybody.
      if (this.participants.has(info.id)) this.#upsertParticipant(info);
    }
    for (const info of delta.published ?? []) this.#upsertPublication(info);
  }

  /** @param {ParticipantId[]} ids who speaks now */
  speak(ids) {
    this.#speaking = ids;
    for (const participant of this.participants.values()) participant.speaking = ids.includes(participant.id);
    this.#host.emit("speakerschanged", { speakers: this.speakers });
  }

  /** @returns {Participant[]} the dominant one first */
  get speakers() {
    return this.#speaking.flatMap((id) => this.participants.get(id) ?? []);
  }

  /** @returns {Publication[]} everybody's */
  publications() {
    return [...this.participants.values()].flatMap(({ publications }) => [...publications.values()]);
  }

  /** @param {ParticipantInfo} info */
  #upsertParticipant(info) {
    const known = this.participants.get(info.id);
    if (known) {
      if (known.update(info)) this.#host.emit("participantchanged", { participant: known });
      return;
    }
    const participant = new Participant(info, false);
    participant.speaking = this.#speaking.includes(info.id);
    this.participants.set(info.id, participant);
    this.#host.emit("participantjoined", { participant });
  }

  /** @param {ParticipantId} id @param {string} reason */
  #removeParticipant(id, reason) {
    const participant = this.participants.get(id);
    if (!participant || participant === this.me) return;
    for (const publication of [...participant.publications.keys()]) this.#removePublication(publication);
    this.participants.delete(id);
    this.#host.emit("participantleft", { participant, reason });
    if (participant.speaking) this.speak(this.#speaking.filter((other) => other !== id));
  }

  /** @param {PublicationInfo} info */
  #upsertPublication(info) {
    const participant = this.participants.get(info.participant);
    if (!participant) return; // a room too big to name everybody
    const muted = participant === this.me ? this.#host.muted(info.source) : undefined;
    const stated = muted === undefined ? info : { ...info, muted };
    const known = participant.publications.get(info.id);
    if (known) {
      if (known.update(stated)) this.#host.emit("publicationchanged", { participant, publication: known });
      this.#host.published(known);
      return;
    }
    const publication = new Publication(stated, participant, {
      changed: (changed) => this.#host.emit("publicationchanged", { participant, publication: changed }),
      attached: this.#host.attached,
    });
    participant.publications.set(info.id, publication);
    this.#host.emit("publicationadded", { participant, publication });
    this.#host.published(publication);
  }

  /** @param {PublicationId} id */
  #removePublication(id) {
    for (const participant of this.participants.values()) {
      const publication = participant.publications.get(id);
      if (!publication) continue;
      participant.publications.delete(id);
      publication.end();
      this.#host.ended(publication);
      this.#host.emit("publicationremoved", { participant, publication });
    }
  }
}
