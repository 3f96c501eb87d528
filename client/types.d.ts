// The public interface. Everything here is also what `motet.js` gives at run time.

import type { Kind, ParticipantId, PublicationId, Source } from "./protocol.d.ts";

export type { Kind, ParticipantId, PublicationId, Source };

/**
 * `true`: the default device; constraints: a certain one; a track: this one, which from then on belongs to the room
 * (it is stopped when turned off); `false`: none.
 */
export type DeviceChoice = boolean | MediaStreamTrack | MediaTrackConstraints;

export interface JoinOptions {
  /** 1–64 of `[A-Za-z0-9._~-]`. */
  room: string;
  /** What others see: at most 64 characters. */
  name?: string;
  /** Default `false`. A device that does not open does not stop the join: see the `error` event and `room.camera.error`. */
  camera?: DeviceChoice;
  /** Default `false`. */
  microphone?: DeviceChoice;
  /** Ends the join, or leaves the room. */
  signal?: AbortSignal;
}

export interface OpenedDevices {
  camera: MediaStreamTrack | null;
  microphone: MediaStreamTrack | null;
  errors: { camera?: MotetError; microphone?: MotetError };
}

/** `reason` is stable and made for programs, `hint` is a sentence for people. */
export interface MotetError extends Error {
  readonly reason: string;
  readonly hint: string;
  readonly retryMs: number | undefined;
}

export type RoomState = "connecting" | "connected" | "reconnecting" | "closed";

/** A camera or microphone of one's own. */
export interface LocalMedia {
  readonly source: Source;
  readonly state: "off" | "starting" | "on";
  readonly on: boolean;
  /** Why it is off when nobody turned it off. */
  readonly error: MotetError | null;
  readonly track: MediaStreamTrack | null;
}

export interface Publication {
  readonly id: PublicationId;
  readonly participant: Participant;
  readonly kind: Kind;
  readonly source: Source;
  readonly muted: boolean;
  /** What arrives now; `null` while nothing does. It changes: prefer `attach`. */
  readonly track: MediaStreamTrack | null;
  /** Whether an attached video element shows a frame of this very publication (and not yet or no longer another's). */
  readonly visible: boolean;
  /** 0 is the largest encoding; `null` while nothing arrives. */
  readonly layer: number | null;
  /** Why not more, in the server's word. */
  readonly why: string | null;
  /** Shows it in the element, now and whenever it comes back; its size decides what is asked of the server. */
  attach(element: HTMLMediaElement): void;
  detach(element: HTMLMediaElement): void;
}

/** What is known of everybody, also in rooms too big to show them all. */
export interface Person {
  readonly id: ParticipantId;
  readonly name: string;
  /** The server hears nothing from them for some seconds. */
  readonly away: boolean;
}

export interface Participant extends Person {
  /** Now; see the `speakerschanged` event. */
  readonly speaking: boolean;
  readonly isMe: boolean;
  readonly publications: ReadonlyMap<PublicationId, Publication>;
  readonly camera: Publication | null;
  readonly microphone: Publication | null;
  readonly screen: Publication | null;
}

/** Beside the pictures that are attached, which say by themselves what they need. */
export interface ReceiveChoice {
  /** `"loudest"` (default): those who speak, as many as a browser can play; or only these microphones. */
  audio?: "loudest" | readonly (Publication | PublicationId)[];
  /** Of the cameras, attached or not, only those of so many people who spoke last. Absent: all. */
  lastSpeakers?: number;
}

export interface ChatMessage {
  /** Grows in the order in which the room heard it. */
  readonly id: number;
  readonly from: ParticipantId;
  /** The name that the sender had. */
  readonly name: string;
  /** `null`: to everybody. */
  readonly to: ParticipantId | null;
  /** Show it as text, never as markup. */
  readonly text: string;
  readonly key: string | undefined;
  readonly at: Date;
  /** Said by this page, or by the participant that it is. */
  readonly mine: boolean;
}

export interface Chat {
  /** What was said, oldest first, also before one came: the last 200 messages of at most 4 hours. */
  readonly messages: readonly ChatMessage[];
  /** Resolves when the room heard it, exactly once; while the connection is down it waits. At most 4096 bytes. */
  send(text: string, options?: { to?: ParticipantId | Person }): Promise<ChatMessage>;
  /** To be called while somebody writes; others get the `typing` event. */
  typing(options?: { to?: ParticipantId | Person }): void;
}

/** Who is there when `join` is done is in `room.participants`; events tell what changes afterwards. */
export interface RoomEventMap {
  participantjoined: CustomEvent<{ participant: Participant }>;
  /** `reason`: `bye`, `silent`, … */
  participantleft: CustomEvent<{ participant: Participant; reason: string }>;
  /** Name or presence. */
  participantchanged: CustomEvent<{ participant: Participant }>;
  publicationadded: CustomEvent<{ participant: Participant; publication: Publication }>;
  /** Muted or not, visible or not, another layer or track. */
  publicationchanged: CustomEvent<{ participant: Participant; publication: Publication }>;
  publicationremoved: CustomEvent<{ participant: Participant; publication: Publication }>;
  /** Who speaks now, the dominant one first. */
  speakerschanged: CustomEvent<{ speakers: Participant[] }>;
  /** Somebody said something, oneself included. `participant` is `null` where he is not named or has left. */
  chat: CustomEvent<{ message: ChatMessage; participant: Participant | null }>;
  /** Somebody is writing: show it for 5 s. */
  typing: CustomEvent<{ participant: Participant; private: boolean }>;
  /** One's own camera or microphone. */
  mediachanged: CustomEvent<{ media: LocalMedia }>;
  /** The connection to the server broke; it is being restored and the room stays as it was. */
  reconnecting: CustomEvent<{ reason: string }>;
  reconnected: CustomEvent<Record<string, never>>;
  /** The browser plays sound only after a click: call `resumePlayback` in its handler. */
  playbackblocked: CustomEvent<Record<string, never>>;
  /** Something did not work, and the call goes on. */
  error: CustomEvent<{ error: MotetError }>;
  /** The end: `error` is `null` after `leave`. */
  closed: CustomEvent<{ error: MotetError | null }>;
}

export interface Room extends EventTarget {
  readonly id: string;
  readonly state: RoomState;
  readonly me: Participant;
  /** Everybody, oneself included; in rooms of more than 100, those who publish something. */
  readonly participants: ReadonlyMap<ParticipantId, Participant>;
  /** All participants, those unnamed in big rooms included. */
  readonly total: number;
  /** Who speaks now, the dominant one first. */
  readonly speakers: Participant[];
  readonly camera: LocalMedia;
  readonly microphone: LocalMedia;
  readonly chat: Chat;
  setCamera(choice: DeviceChoice): Promise<void>;
  /** Turning the microphone off keeps the device open, so that turning it on is instant. */
  setMicrophone(choice: DeviceChoice): Promise<void>;
  setName(name: string): void;
  /** What to receive; replaces the choice before. */
  want(choice: ReceiveChoice): void;
  /** Everybody, page by page from the server: for lists in big rooms. Fails when the connection breaks meanwhile. */
  people(): AsyncIterable<Person>;
  resumePlayback(): Promise<void>;
  leave(): void;
  addEventListener<K extends keyof RoomEventMap>(
    type: K,
    listener: (event: RoomEventMap[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

/**
 * Enters a room.
 * @param url the server's address, `https://…`; the page's own origin is `location.href`
 * @throws {MotetError} the server's refusal, or `unreachable`, `timeout`, `unsupported_browser`
 */
export function join(url: string | URL, options: JoinOptions): Promise<Room>;

/** Opens camera and microphone before joining, for a preview. Never rejects: see `errors`. */
export function openDevices(choice: { camera?: DeviceChoice; microphone?: DeviceChoice }): Promise<OpenedDevices>;

/** Of every failure that this library reports. */
export const MotetError: { new (reason: string, more?: { hint?: string; cause?: unknown; retryMs?: number }): MotetError };
