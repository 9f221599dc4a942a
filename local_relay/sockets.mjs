/** All WebSockets of the relay: accepting, refusing, dropping and counting them. */

import { EventEmitter } from "node:events"
import WebSocket, { WebSocketServer } from "ws"
import { Gate } from "./gate.mjs"
import { kindOf } from "./messages.mjs"
import { choose, randomBytes, randomStream } from "./random.mjs"
import { ServiceQueue } from "./timing.mjs"

const GARBAGE_BYTES = 64

/**
 * The server that automerge-repo's adapter listens to: it emits `connection` with a Gate for each
 * socket, and `clients` are the gates that its keep-alive looks after.
 */
class AdapterSide extends EventEmitter {
  clients = new Set()
}

export class Sockets {
  #open = new Map() // WebSocket -> {endedBy, gate}
  #webSockets = new WebSocketServer({ noServer: true })

  /** `peerId()` gives the relay's peer id. `adapterSide` is what the network adapter is made with. */
  constructor({ faults, counters, seed, peerId, log }) {
    this.faults = faults
    this.counters = counters
    this.peerId = peerId
    this.log = log
    this.adapterSide = new AdapterSide()
    this.pickRandom = randomStream(seed, "dropped connections")
    this.garbageRandom = randomStream(seed, "garbage")
    const serviceRandom = randomStream(seed, "service times")
    this.service = new ServiceQueue({
      // The end of a socket is no message: it waits its turn and costs nothing.
      serviceTime: ({ kind }) =>
        kind === "end" ? 0 : faults.service_ms * (1 + faults.service_noise * (2 * serviceRandom() - 1)),
      finish: item => item.gate.handle(item),
    })
  }

  /** How many WebSockets are open at this instant. */
  get open() {
    return this.#openSockets().length
  }

  #openSockets() {
    return [...this.#open.keys()].filter(socket => socket.readyState === WebSocket.OPEN)
  }

  /** Answers an HTTP upgrade request: with a WebSocket, or with 503 beyond max_connections. */
  upgrade(request, tcp, head) {
    tcp.on("error", () => tcp.destroy())
    const limit = this.faults.max_connections
    if (limit !== null && this.open >= limit) {
      this.counters.sockets.refused += 1
      return refuse(tcp, 503, "Service Unavailable", `the relay holds ${limit} connections and takes no more\n`)
    }
    this.#webSockets.handleUpgrade(request, tcp, head, socket => this.#accept(socket))
  }

  #accept(socket) {
    this.counters.sockets.accepted += 1
    const entry = { endedBy: undefined, gate: undefined }
    this.#open.set(socket, entry)
    socket.on("error", error => this.log(`socket error: ${error.message}`))
    socket.on("close", () => {
      this.#open.delete(socket)
      const endedBy = entry.endedBy ?? (entry.gate?.endedByRelay ? "closed_by_relay" : "closed_by_client")
      this.counters.sockets[endedBy] += 1
    })
    const { faults } = this
    if (faults.close_at_once) {
      entry.endedBy = "dropped_by_fault"
      return socket.close(1011, "closed at once")
    }
    if (!faults.garbage && !faults.accept_silent) return this.#connect(socket, entry)

    socket.on("message", bytes => this.counters.received(kindOf(bytes), bytes.length))
    if (faults.garbage) {
      const talkNonsense = () => socket.send(randomBytes(this.garbageRandom, GARBAGE_BYTES))
      socket.on("message", talkNonsense)
      talkNonsense()
    }
  }

  #connect(socket, entry) {
    const { faults, counters, service, peerId, log } = this
    entry.gate = new Gate(socket, { faults, counters, service, peerId, log })
    this.adapterSide.clients.add(entry.gate)
    socket.on("close", () => this.adapterSide.clients.delete(entry.gate))
    this.adapterSide.emit("connection", entry.gate)
  }

  /** Drops `count` open connections, chosen at random, without a closing handshake. Gives how many. */
  drop(count) {
    const chosen = choose(this.pickRandom, this.#openSockets(), count)
    for (const socket of chosen) {
      this.#open.get(socket).endedBy = "dropped_by_fault"
      socket.terminate()
    }
    return chosen.length
  }
}

/** Answers an upgrade request with a plain HTTP error and closes it. */
export function refuse(tcp, status, reason, text) {
  tcp.end(
    `HTTP/1.1 ${status} ${reason}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
    () => tcp.destroy(),
  )
}
