/** The faults that go on by themselves: leaking memory, dying of it, and dropping connections. */

import { writeSync } from "node:fs"

const TICK_MS = 100
const MB = 1024 * 1024
const CHUNK_BYTES = 64 * 1024

export class Pressure {
  #timer
  #last = 0
  #leaked = [] // retained for good: that is the fault
  #leakedBytes = 0
  #owedBytes = 0
  #owedDrops = 0

  constructor({ faults, sockets, log }) {
    this.faults = faults
    this.sockets = sockets
    this.log = log
    faults.onChange(() => this.#startOrStop())
    this.#startOrStop()
  }

  /** How much memory has been retained (MB of 1024 * 1024 bytes). */
  get leaked_mb() {
    return this.#leakedBytes / MB
  }

  #startOrStop() {
    const needed = this.faults.leak_mb_per_minute > 0 || this.faults.drop_percent_per_minute > 0
    if (needed && this.#timer === undefined) {
      this.#last = performance.now()
      this.#timer = setInterval(() => this.#tick(), TICK_MS)
    } else if (!needed) {
      clearInterval(this.#timer)
      this.#timer = undefined
    }
    this.#dieIfFull()
  }

  #tick() {
    // Rates count the time that has really passed, so a late tick changes nothing in the sum.
    const now = performance.now()
    const minutes = (now - this.#last) / 60_000
    this.#last = now
    this.#leak(minutes)
    this.#drop(minutes)
  }

  #leak(minutes) {
    this.#owedBytes += this.faults.leak_mb_per_minute * MB * minutes
    if (this.#owedBytes < CHUNK_BYTES) return
    const bytes = Math.floor(this.#owedBytes)
    this.#owedBytes -= bytes
    // Filled, because pages that were never written do not count as resident memory.
    this.#leaked.push(Buffer.alloc(bytes, 0xa5))
    this.#leakedBytes += bytes
    this.#dieIfFull()
  }

  #dieIfFull() {
    const limit = this.faults.die_at_mb
    if (limit === null || this.leaked_mb < limit) return
    // Written at once: nothing runs after the signal, which is the one of the kernel's own OOM killer.
    writeSync(2, `relay: ${this.leaked_mb.toFixed(1)} MB have leaked, die_at_mb is ${limit}: killing itself\n`)
    process.kill(process.pid, "SIGKILL")
  }

  /** Each open connection adds its share of a drop; a whole one is carried out when it is complete. */
  #drop(minutes) {
    this.#owedDrops += (this.sockets.open * this.faults.drop_percent_per_minute * minutes) / 100
    const count = Math.floor(this.#owedDrops)
    if (count === 0) return
    this.#owedDrops -= count
    this.sockets.drop(count)
  }
}
