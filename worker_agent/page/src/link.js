// A worse network between a socket and its user.
//
// Chromium's own emulation delays a WebSocket's handshake but not its messages, and shares its
// bandwidth among all sockets of a page, so the network is made worse here: each direction is a
// line of its own per connection, first in, first out. `latency_ms` is added to the round trip,
// half of it each way; `kilobits_per_s` is each direction's; while the link is cut nothing
// passes, and what was on its way arrives afterwards, as TCP has it.

class Direction {
  constructor({ latencyMs, bytesPerMs }, pass) {
    this.latencyMs = latencyMs;
    this.bytesPerMs = bytesPerMs;
    this.pass = pass;
    this.queue = [];
    this.freeAtMs = 0; // when the line has carried all that was given to it
    this.cutUntilMs = 0;
    this.timer = null;
  }

  send(data) {
    const now = performance.now();
    this.freeAtMs = Math.max(this.freeAtMs, now) + data.byteLength / this.bytesPerMs;
    this.queue.push([this.freeAtMs + this.latencyMs, data]);
    if (this.queue.length === 1) this.#arm();
  }

  cut(untilMs) {
    this.cutUntilMs = untilMs;
    this.#arm();
  }

  #arm() {
    clearTimeout(this.timer);
    if (this.queue.length === 0) return;
    const dueMs = Math.max(this.queue[0][0], this.cutUntilMs);
    this.timer = setTimeout(() => this.#fire(), Math.max(0, dueMs - performance.now()));
  }

  #fire() {
    while (this.queue.length > 0 && Math.max(this.queue[0][0], this.cutUntilMs) <= performance.now()) {
      this.pass(this.queue.shift()[1]);
    }
    this.#arm();
  }

  end() {
    clearTimeout(this.timer);
    this.queue = [];
  }
}

// The golden ratio spreads a share evenly over any run of connection numbers.
const GOLDEN = 0.6180339887498949;
export const isWorse = (connection, network) =>
  network !== null && (connection * GOLDEN) % 1 < network.share;

export class Link {
  constructor(network, toRelay, toUser) {
    const line = {
      latencyMs: network.latency_ms / 2,
      bytesPerMs: network.kilobits_per_s > 0 ? network.kilobits_per_s / 8 : Infinity,
    };
    this.up = new Direction(line, toRelay);
    this.down = new Direction(line, toUser);
  }

  cut(forMs) {
    const untilMs = performance.now() + forMs;
    this.up.cut(untilMs);
    this.down.cut(untilMs);
  }

  end() {
    this.up.end();
    this.down.end();
  }
}
