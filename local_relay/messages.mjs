/**
 * What the relay must know of protocol messages that it does not handle itself: their kind, cheaply,
 * and how to make the few that faults send.
 */

import { cbor } from "@automerge/automerge-repo"

/** The kinds of the automerge-repo network protocol; anything else counts as "other". */
export const KINDS = Object.freeze([
  "join",
  "peer",
  "request",
  "sync",
  "doc-unavailable",
  "ephemeral",
  "error",
  "leave",
  "remote-subscription-change",
  "remote-heads-changed",
  "other",
])

const KNOWN = new Set(KINDS)
const TYPE_KEY = Buffer.from([0x64, ...Buffer.from("type")]) // CBOR: a text of four bytes, "type"

/**
 * The kind of an encoded message.
 *
 * Every implementation seen writes `type` as the first key of the map, so a look at a few bytes is
 * enough; decoding twice would double the cost of each message. Other orders are decoded.
 */
export function kindOf(bytes) {
  const kind = kindAtFront(bytes) ?? kindDecoded(bytes)
  return KNOWN.has(kind) ? kind : "other"
}

function kindAtFront(bytes) {
  const major = bytes[0]
  let at
  if (major >= 0xa0 && major <= 0xb7) at = 1
  else if (major === 0xb8) at = 2
  else if (major === 0xb9) at = 3
  else return undefined
  for (const byte of TYPE_KEY) {
    if (bytes[at] !== byte) return undefined
    at += 1
  }
  let length = bytes[at] - 0x60
  at += 1
  if (length === 0x18) {
    length = bytes[at]
    at += 1
  } else if (!(length >= 0 && length < 0x18)) {
    return undefined
  }
  return bytes.latin1Slice(at, at + length)
}

function kindDecoded(bytes) {
  try {
    return decode(bytes)?.type
  } catch {
    return undefined
  }
}

/** The message in `bytes`; throws when they are no CBOR. */
export const decode = bytes => cbor.decode(bytes)

/** `message` as bytes for a socket. */
export const encode = message => cbor.encode(message)
