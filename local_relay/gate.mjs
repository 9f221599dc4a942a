/**
 * A socket as the network adapter of automerge-repo sees it, with the message faults in between:
 *
 *   socket ─▶ delay in ─▶ the relay's one server ─▶ adapter and repo ─▶ delay out ─▶ socket
 *
 * Nothing overtakes on a socket: while something waits in a line, what comes after waits behind it,
 * and the end of a socket is passed on behind the messages that it sent before.
 */

import { EventEmitter } from "node:events"
import WebSocket from "ws"
import { decode, encode, kindOf } from "./messages.mjs"
import { DelayLine } from "./timing.mjs"

const ENDED = Symbol("the socket's end, queued behind its messages")

/** A handshake is never delayed: only messages about documents are. */
const isDelayed = kind => kind === "sync" || kind === "request"

export class Gate extends EventEmitter {
  #in = new DelayLine((item, due) => this.#arrive(item, due))
  #out = new DelayLine(item => this.#write(item.bytes, item.kind))
  #ended = false

  /** `service` is the relay's ServiceQueue, shared by all gates; `peerId()` is the relay's own. */
  constructor(socket, { faults, counters, service, peerId, log }) {
    super()
    this.socket = socket
    this.faults = faults
    this.counters = counters
    this.service = service
    this.peerId = peerId
    this.log = log
    socket.on("message", bytes => this.#receive(bytes))
    socket.on("pong", () => this.emit("pong"))
    socket.on("close", () => this.#enter(ENDED, "end"))
  }

  // What the adapter uses of a WebSocket.

  get readyState() {
    return this.socket.readyState
  }

  send(bytes) {
    const view = Buffer.from(bytes)
    const kind = kindOf(view)
    if (this.faults.delay_out_ms === 0 && this.#out.empty && kind !== "peer") return this.#write(view, kind)
    const now = performance.now()
    if (kind === "peer") this.#write(this.#handshake(view), kind)
    else if (isDelayed(kind)) this.#out.push({ bytes: view, kind }, this.faults.delay_out_ms, now)
    else if (this.#out.empty) this.#write(view, kind)
    else this.#out.push({ bytes: view, kind }, 0, now)
  }

  close() {
    this.endedByRelay = true
    this.socket.close()
  }

  terminate() {
    this.endedByRelay = true
    this.socket.terminate()
  }

  ping() {
    this.socket.ping()
  }

  // From the socket to the adapter.

  #receive(bytes) {
    const kind = kindOf(bytes)
    this.counters.received(kind, bytes.length)
    this.#enter(bytes, kind)
  }

  #enter(bytes, kind) {
    const delay_ms = isDelayed(kind) ? this.faults.delay_in_ms : 0
    if (delay_ms === 0 && this.#in.empty) this.#arrive({ bytes, kind })
    else this.#in.push({ bytes, kind }, delay_ms, performance.now())
  }

  #arrive({ bytes, kind }, arrival) {
    if (this.faults.service_ms === 0 && this.service.idle) this.handle({ bytes, kind })
    else this.service.push({ gate: this, bytes, kind }, arrival ?? performance.now())
  }

  /** Passes an item on to the adapter; called by the service queue when the item has been served. */
  handle({ bytes, kind }) {
    if (bytes === ENDED) {
      this.#ended = true
      this.emit("close")
      return
    }
    if (this.#ended) return
    try {
      if (this.faults.no_documents && isDelayed(kind)) this.#withhold(bytes, kind)
      else this.emit("message", bytes)
    } catch (error) {
      // The adapter throws at some bytes that are CBOR and no message. One client's mistake must not end the relay.
      this.counters.errors += 1
      this.log(`closing a socket whose message could not be handled: ${error.message}`)
      this.close()
    }
  }

  #withhold(bytes, kind) {
    this.counters.withheld += 1
    if (kind !== "request") return
    const { senderId, documentId } = decode(bytes)
    this.send(encode({ type: "doc-unavailable", senderId: this.peerId(), targetId: senderId, documentId }))
  }

  // From the adapter to the socket.

  #handshake(bytes) {
    const version = this.faults.protocol_version
    return version === null ? bytes : encode({ ...decode(bytes), selectedProtocolVersion: version })
  }

  #write(bytes, kind) {
    if (this.socket.readyState !== WebSocket.OPEN) return
    this.counters.sent(kind, bytes.length)
    this.socket.send(bytes)
  }
}
