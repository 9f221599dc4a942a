/**
 * Queues in time: a delay line for one direction of one socket, and the relay's one server.
 *
 * Node's timers are a millisecond coarse and late under load. Both queues therefore compute with
 * the instants at which things *should* happen (`performance.now()` milliseconds) and use a timer
 * only to be woken: lateness delays a release, and is never passed on to the ones behind it.
 */

/** Wakes `wake` at or after an instant, never before it; one timer, and none while it is not set. */
class Alarm {
  #timer
  #at = Number.POSITIVE_INFINITY

  constructor(wake) {
    this.wake = wake
  }

  /** Sets the alarm to `at`; Infinity takes it back. */
  set(at) {
    if (at === this.#at) return
    clearTimeout(this.#timer)
    this.#at = at
    if (at !== Number.POSITIVE_INFINITY) this.#arm()
  }

  #arm() {
    this.#timer = setTimeout(() => {
      // A timer may fire up to a millisecond early: its clock is the event loop's, cut to milliseconds.
      if (performance.now() < this.#at) return this.#arm()
      this.#at = Number.POSITIVE_INFINITY
      this.wake()
    }, Math.max(0, Math.ceil(this.#at - performance.now())))
  }
}

/** Holds items for a while and releases them in the order in which they came. */
export class DelayLine {
  #items = []
  #head = 0
  #alarm = new Alarm(() => this.#releaseDue())

  /** `release(item, due)` gets each item and the instant at which it was due. */
  constructor(release) {
    this.release = release
  }

  get empty() {
    return this.#head === this.#items.length
  }

  /** Takes an item in, due `delay_ms` from `now` but never before the one ahead of it. */
  push(item, delay_ms, now) {
    const ahead = this.empty ? 0 : this.#items[this.#items.length - 1].due
    this.#items.push({ item, due: Math.max(ahead, now + delay_ms) })
    this.#alarm.set(this.#items[this.#head].due)
  }

  #releaseDue() {
    const now = performance.now()
    while (!this.empty && this.#items[this.#head].due <= now) {
      const { item, due } = this.#items[this.#head]
      this.#head += 1
      this.release(item, due)
    }
    if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head)
      this.#head = 0
    }
    if (this.empty) {
      this.#items = []
      this.#head = 0
    } else {
      this.#alarm.set(this.#items[this.#head].due)
    }
  }
}

/**
 * One server for all sockets: items are served one at a time in the order in which they arrive.
 * Item k begins at max(its arrival, the end of k-1) and is finished when its service time is over.
 * During a stall nothing is finished; what would have been is finished when the stall ends.
 */
export class ServiceQueue {
  #items = []
  #head = 0
  #freeAt = 0
  #stalledUntil = 0
  #alarm = new Alarm(() => this.#finishDue())
  /** The service times of all that was finished, added up (ms). */
  served_ms = 0

  /** `serviceTime(item)` draws one service time (ms); `finish(item)` gets each item when it is served. */
  constructor({ serviceTime, finish }) {
    this.serviceTime = serviceTime
    this.finish = finish
  }

  /** Nothing waits, and nothing has to wait. */
  get idle() {
    return this.#head === this.#items.length && this.#stalledUntil === 0
  }

  get waiting() {
    return this.#items.length - this.#head
  }

  /** How long the present stall still lasts (ms). */
  get stall_ms() {
    return Math.max(0, this.#stalledUntil - performance.now())
  }

  /** Takes an item in, which arrived at the instant `arrival`. */
  push(item, arrival) {
    this.#items.push({ item, arrival, service_ms: undefined, end: undefined })
    if (this.waiting === 1) this.#finishDue()
  }

  /** Finishes nothing for `stall_ms` from now on; 0 ends a stall at this instant. */
  stall(stall_ms) {
    const now = performance.now()
    this.#stalledUntil = stall_ms > 0 ? now + stall_ms : Math.min(this.#stalledUntil, now)
    this.#finishDue()
  }

  #finishDue() {
    const now = performance.now()
    if (this.#stalledUntil > now) return this.#alarm.set(this.#stalledUntil)
    while (this.#head < this.#items.length) {
      const served = this.#items[this.#head]
      if (served.end === undefined) {
        const start = Math.max(served.arrival, this.#freeAt, this.#stalledUntil)
        served.service_ms = this.serviceTime(served.item)
        served.end = start + served.service_ms
      } else if (served.end < this.#stalledUntil) {
        served.end = this.#stalledUntil
      }
      if (served.end > now) break
      this.#freeAt = served.end
      this.served_ms += served.service_ms
      this.#head += 1
      this.finish(served.item)
    }
    if (this.#head === this.#items.length) {
      this.#items = []
      this.#head = 0
      this.#stalledUntil = 0
    } else {
      if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
        this.#items = this.#items.slice(this.#head)
        this.#head = 0
      }
      this.#alarm.set(this.#items[this.#head].end)
    }
  }
}
