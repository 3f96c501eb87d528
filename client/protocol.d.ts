// The wire messages, as PROTOCOL.md specifies them. One interface for each kind; field names are the wire's.

/** Sixteen lower-case hexadecimal digits. */
export type ParticipantId = string;
/** Never used twice in a room; also the CSRC of the packets that carry it. */
export type PublicationId = number;
/** The mid of a section: names a slot, or the section that carries one's own publication. */
export type Mid = string;
export type Kind = "audio" | "video";
export type Source = "microphone" | "camera" | "screen" | "screen-audio";

/** What messages carry; those of the carrier itself have no `s`. `s` counts from 1 in each direction; `a` is the highest `s` seen. */
export interface Envelope {
  s?: number;
  a?: number;
}

export interface Publish {
  mid: Mid;
  kind: Kind;
  source: Source;
  muted?: boolean;
}

export interface ParticipantInfo {
  id: ParticipantId;
  name: string;
  away?: boolean;
}

export interface PublicationInfo {
  id: PublicationId;
  participant: ParticipantId;
  kind: Kind;
  source: Source;
  muted?: boolean;
  /** Only on one's own. */
  mid?: Mid;
}

export interface Wish {
  /** Physical pixels; 0: not at all. */
  height: number;
  /** 0–255, higher first. */
  priority: number;
}

export interface SlotState {
  slot: Mid;
  publication: PublicationId | null;
  /** Decided but not begun: no name may be shown. */
  pending?: boolean;
  /** The slot's RTP timestamp of the first packet of this binding. */
  fromTs?: number;
  /** 0 is the largest encoding. */
  layer?: number;
  /** Why not more. */
  why?: string;
}

export interface HaveState {
  /** Of the `want` that it answers. */
  n: number;
  /** The transport whose slots these are. */
  transport: number;
  slots: SlotState[];
}

export interface RoomState {
  rev: number;
  total: number;
}

// Client to server

export interface Hello extends Envelope {
  t: "hello";
  caps?: string[];
  room: string;
  name?: string;
  offer: string;
  publish?: Publish[];
  want?: WantState;
  /** Of an earlier session in this room, whose participant id is to be kept. */
  session?: string;
  token?: string;
}
export interface Resume extends Envelope {
  t: "resume";
  session: string;
  token: string;
}
export interface Bye extends Envelope {
  t: "bye";
}
export interface Offer extends Envelope {
  t: "offer";
  transport: number;
  sdp: string;
  publish?: Publish[];
}
export interface PublishMessage extends Envelope {
  t: "publish";
  publish: Publish[];
}
export interface Unpublish extends Envelope {
  t: "unpublish";
  publication: PublicationId;
}
export interface Mute extends Envelope {
  t: "mute";
  publication: PublicationId;
  muted: boolean;
}
export interface WantState {
  n: number;
  default: Wish;
  publications: Record<string, Wish>;
  /** Which voices: as many of the loudest as there are slots, or only these. */
  audio?: "loudest" | PublicationId[];
  /** Beside what is wished for by name, the cameras of those who spoke last; absent: all. */
  video?: { last: number };
}
export interface Want extends Envelope, WantState {
  t: "want";
}
export interface Name extends Envelope {
  t: "name";
  name: string;
}
export interface Ping extends Envelope {
  t: "ping";
}

export interface Chat extends Envelope {
  t: "chat";
  /** Absent: to everybody. */
  to?: ParticipantId;
  /** Either this or `sealed`. */
  text?: string;
  /** Base64 of what only those with the key can read. */
  sealed?: string;
  /** The client's own name for it: a repetition is said once. */
  key?: string;
}
export interface Typing extends Envelope {
  t: "typing";
  to?: ParticipantId;
}
export interface Stall extends Envelope {
  t: "stall";
  slot: Mid;
  /** For how long nothing new was shown. */
  ms: number;
}
export interface Who extends Envelope {
  t: "who";
  /** The page begins behind this id. */
  after?: ParticipantId;
}

// Both

/** Begins a request of the long poll. */
export interface Poll extends Envelope {
  t: "poll";
  /** Secret. */
  id: string;
}

/** Begins the first answer of a long poll carrier. */
export interface CarrierName extends Envelope {
  t: "carrier";
  /** Secret. */
  id: string;
}

/** Ends the last answer of a long poll carrier. */
export interface Closed extends Envelope {
  t: "closed";
  /** As a WebSocket's close code. */
  code: number;
}

export interface Ack extends Envelope {
  t: "ack";
}

// Server to client

export interface Welcome extends Envelope {
  t: "welcome";
  caps: string[];
  session: string;
  epoch: number;
  /** The token of the next `resume`. */
  resume: string;
  you: ParticipantId;
  answer: string;
  room: RoomState;
  participants: ParticipantInfo[];
  publications: PublicationInfo[];
  have: HaveState;
  /** What was said to everybody before, oldest first. */
  chat?: SaidInfo[];
  limits: Record<string, number>;
}
export interface Refuse extends Envelope {
  t: "refuse";
  reason: string;
  hint: string;
  retryMs?: number;
}
export interface Resumed extends Envelope {
  t: "resumed";
  /** The token of the next one. */
  resume: string;
}
export interface Snapshot extends Envelope {
  t: "snapshot";
  room: RoomState;
  participants: ParticipantInfo[];
  publications: PublicationInfo[];
}
export interface Pong extends Envelope {
  t: "pong";
}
export interface Answer extends Envelope {
  t: "answer";
  transport: number;
  sdp: string;
}
export interface RoomDelta extends Envelope {
  t: "room";
  rev: number;
  // Applied in this order.
  unpublished?: PublicationId[];
  left?: { id: ParticipantId; reason: string }[];
  joined?: ParticipantInfo[];
  changed?: ParticipantInfo[];
  published?: PublicationInfo[];
  total: number;
}
export interface Have extends Envelope, HaveState {
  t: "have";
}
export interface WhoPage extends Envelope {
  t: "who";
  room: RoomState;
  participants: ParticipantInfo[];
  /** What the next page begins behind; absent on the last. */
  next?: ParticipantId;
}
/** What somebody said. */
export interface SaidInfo {
  /** Grows in the order in which the room heard it. */
  id: number;
  from: ParticipantId;
  /** The name that he had. */
  name: string;
  to?: ParticipantId;
  text?: string;
  sealed?: string;
  key?: string;
  /** ms since 1970 by the server's clock. */
  at: number;
}
export interface Said extends Envelope, SaidInfo {
  t: "chat";
}
export interface TypingSeen extends Envelope {
  t: "typing";
  from: ParticipantId;
  to?: ParticipantId;
}
export interface Speakers extends Envelope {
  t: "speakers";
  /** Who speaks now, the dominant one first. */
  speakers: ParticipantId[];
}
export interface Layers extends Envelope {
  t: "layers";
  /** Of each of one's own pictures, the encodings that somebody watches, 0 the largest. */
  publications: Record<string, number[]>;
}
export interface Restart extends Envelope {
  t: "restart";
  reason: string;
}
export interface ErrorMessage extends Envelope {
  t: "error";
  /** The `s` of the message that failed. */
  id?: number;
  reason: string;
  hint: string;
  retryMs?: number;
}
export interface Goaway extends Envelope {
  t: "goaway";
  inMs: number;
  reason: string;
}

export type ClientMessage =
  | Hello | Resume | Poll | Ack | Ping | Bye | Offer | PublishMessage | Unpublish | Mute | Want | Name | Chat | Typing | Stall | Who;
export type ServerMessage =
  | CarrierName | Closed | Welcome | Refuse | Resumed | Ack | Pong | Answer | Restart | RoomDelta | Snapshot | WhoPage | Said | TypingSeen | Have | Speakers | Layers | ErrorMessage | Goaway;
