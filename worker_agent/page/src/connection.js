// One connection: exactly one WebSocket at a time, and one replica of its document (two while
// its members move on to a fresh one).

import { nowUs } from "./clock.js";
import { isWorse, Link } from "./link.js";
import { Replica } from "./replica.js";
import * as wire from "./wire.js";

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 15_000;

export class Connection {
  constructor({ index, document, settings, recorder, identify }) {
    this.index = index;
    this.document = document;
    this.settings = settings;
    this.recorder = recorder;
    this.identify = identify; // generation -> { documentId, creator }
    this.replicas = new Map();
    this.peerId = null; // a fresh one for each socket
    this.tries = 0;
    this.retries = 0;
    this.socket = null;
    this.link = null; // between socket and user, if this one's network is worse
    this.relayId = null; // known once the handshake is done
    this.wanted = false;
    this.failure = null; // the type of the last failure, while not connected
    this.beganMs = performance.now();
  }

  record(event, generation, durationMs, cause = null) {
    this.recorder.connection(
      this.index, this.document, generation, event, durationMs, this.tries, cause,
    );
  }

  get newest() {
    return this.replicas.size ? Math.max(...this.replicas.keys()) : 0;
  }

  get isOpen() {
    return this.relayId !== null;
  }

  get isSynced() {
    return this.isOpen && [...this.replicas.values()].some((replica) => replica.synced);
  }

  // Open, and no edit has waited a second for its acknowledgement.
  get isHealthy() {
    const since = nowUs() - 1e6;
    return this.isSynced && [...this.replicas.values()].every(
      (replica) => replica.pending.length === 0 || replica.pending[0].startedUs > since,
    );
  }

  open(generation) {
    if (this.wanted) return;
    this.wanted = true;
    this.joinDocument(generation);
    this.#connect();
  }

  // Holds a document as well, from now on.
  joinDocument(generation) {
    if (this.replicas.has(generation)) return this.replicas.get(generation);
    const replica = new Replica({
      connection: this,
      generation,
      ...this.identify(generation),
      settings: this.settings,
      recorder: this.recorder,
    });
    this.replicas.set(generation, replica);
    if (this.isOpen) replica.begin();
    return replica;
  }

  leaveDocument(generation) {
    this.replicas.get(generation)?.free();
    this.replicas.delete(generation);
  }

  edit(planned) {
    // A writer that is not there (yet) keeps the edit until it is, or until its phase is over.
    this.joinDocument(planned.generation).edit(planned);
  }

  async #connect() {
    clearTimeout(this.retryTimer);
    this.tries += 1;
    this.beganMs = performance.now();
    this.peerId = `load-${this.settings.worker}-${this.index}-${crypto.randomUUID()}`;
    this.record("opening", this.newest, 0);
    if (this.settings.bootstrap === "tonk" && !(await this.#bootstrap())) return;
    if (!this.wanted) return;
    let socket;
    try {
      socket = new WebSocket(this.settings.relay_url);
    } catch (error) {
      this.#failed(null, "connect_failed", error.message);
      return;
    }
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    const timeout = this.settings.handshake_timeout_ms;
    this.handshakeTimer = setTimeout(() => {
      const type = socket.readyState === WebSocket.OPEN ? "handshake_timeout" : "connect_timeout";
      this.#failed(socket, type, `nothing came within ${timeout} ms`);
    }, timeout);
    if (isWorse(this.index, this.settings.network)) {
      this.link = new Link(
        this.settings.network,
        (data) => this.#put(data),
        (data) => this.#receive(socket, data),
      );
    }
    socket.onopen = () => {
      this.record("open", this.newest, performance.now() - this.beganMs);
      this.#post(wire.join(this.peerId));
    };
    socket.onmessage = ({ data }) => {
      if (this.link && data instanceof ArrayBuffer) this.link.down.send(data);
      else this.#receive(socket, data);
    };
    socket.onclose = ({ code, reason, wasClean }) => {
      const type = this.relayId ? "connection_dropped" : code === 1006 ? "connect_failed" : "closed_early";
      const how = wasClean ? "closed by the relay" : "lost";
      this.#failed(socket, type, `${how}, code ${code}${reason ? `: ${reason}` : ""}`);
    };
  }

  // Fetches what a real client fetches before it connects. Returns whether it came.
  async #bootstrap() {
    const began = performance.now();
    try {
      const answer = await fetch(this.settings.manifest_url, {
        cache: "no-store",
        signal: AbortSignal.timeout(this.settings.handshake_timeout_ms),
      });
      if (!answer.ok && answer.type !== "opaque") throw new Error(`status ${answer.status}`);
      await answer.arrayBuffer();
    } catch (error) {
      const type = error.name === "TimeoutError" ? "bootstrap_timeout" : "bootstrap_failed";
      this.#failed(null, type, error.message);
      return false;
    }
    this.record("bootstrapped", this.newest, performance.now() - began);
    return true;
  }

  #receive(socket, data) {
    if (socket !== this.socket) return;
    let message;
    try {
      message = wire.decode(data);
    } catch (error) {
      this.#failed(socket, "bad_message", error.message);
      return;
    }
    if (!this.relayId) {
      this.#greet(socket, message);
      return;
    }
    try {
      this.#handle(message);
    } catch (error) {
      this.#failed(socket, "bad_message", `${message.type}: ${error.message ?? error}`);
    }
  }

  #greet(socket, message) {
    if (message.type === "error") {
      this.#failed(socket, "relay_error", message.message);
    } else if (message.type !== "peer") {
      this.#failed(socket, "bad_message", `${message.type} came before the handshake`);
    } else if (message.selectedProtocolVersion !== wire.PROTOCOL_VERSION) {
      this.#failed(socket, "protocol_version", `the relay chose version ${message.selectedProtocolVersion}`);
    } else {
      clearTimeout(this.handshakeTimer);
      this.relayId = message.senderId;
      this.openedMs = performance.now();
      this.failure = null;
      this.record("handshake", this.newest, this.openedMs - this.beganMs);
      for (const replica of this.replicas.values()) replica.begin();
    }
  }

  #handle(message) {
    const { type, documentId } = message;
    if (type === "error") {
      this.recorder.error("relay_error", message.message, this.index, this.document);
      return;
    }
    if (!documentId) return;
    const replica = [...this.replicas.values()].find((one) => one.documentId === documentId);
    if (type === "sync" || type === "request") {
      if (replica) {
        this.retries = 0;
        replica.receive(message.data);
      } else if (type === "request") {
        this.#post(wire.unavailable(this.peerId, this.relayId, documentId));
      }
    } else if (type === "doc-unavailable" && replica) {
      replica.unavailable();
    }
  }

  send(type, documentId, data) {
    this.#post(wire.sync(type, this.peerId, this.relayId, documentId, data));
  }

  #post(data) {
    if (this.link) this.link.up.send(data);
    else this.#put(data);
  }

  #put(data) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(data);
  }

  #failed(socket, type, message) {
    if (socket !== this.socket) return;
    const wasOpen = this.isOpen;
    // What the plan does is no error; that it was done is in the connection's samples.
    if (type !== "dropped_on_purpose") this.recorder.error(type, message, this.index, this.document);
    const since = wasOpen ? this.openedMs : this.beganMs;
    this.record(wasOpen ? "dropped" : "failed", this.newest, performance.now() - since, type);
    this.failure = type;
    this.#letGo();
    if (!this.wanted) return;
    // Full jitter over an exponential back-off, so that a thousand clients do not come back
    // in step; reset once a document syncs again.
    const longest = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.retries);
    this.retries += 1;
    this.retryTimer = setTimeout(() => this.#connect(), longest * (0.2 + 0.8 * Math.random()));
  }

  #letGo() {
    clearTimeout(this.handshakeTimer);
    const socket = this.socket;
    this.socket = null;
    this.link?.end();
    this.link = null;
    this.relayId = null;
    for (const replica of this.replicas.values()) replica.pause();
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }

  // Cuts the socket, as a network would, and comes back.
  drop() {
    if (this.isOpen) this.#failed(this.socket, "dropped_on_purpose", "the plan cut this connection");
  }

  // Cuts the network for a while; nobody is told.
  cutOff(forMs) {
    this.link?.cut(forMs);
  }

  close() {
    this.wanted = false;
    clearTimeout(this.retryTimer);
    if (this.isOpen) this.record("closed", this.newest, performance.now() - this.openedMs);
    this.#letGo();
    for (const generation of [...this.replicas.keys()]) this.leaveDocument(generation);
  }
}
