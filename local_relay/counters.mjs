/** What happened since the relay began, counted where it happens. */

import { KINDS } from "./messages.mjs"

const none = () => Object.fromEntries(KINDS.map(kind => [kind, 0]))
const total = counts => Object.values(counts).reduce((sum, count) => sum + count, 0)

export class Counters {
  /** Sockets by what became of them; `accepted` = open + the three kinds of ended ones. */
  sockets = { accepted: 0, refused: 0, dropped_by_fault: 0, closed_by_client: 0, closed_by_relay: 0 }
  /** Messages as they were received from and written to sockets, by kind. */
  in_by_kind = none()
  out_by_kind = none()
  bytes = { in: 0, out: 0 }
  /** Messages that the fault no_documents answered or ignored itself. */
  withheld = 0
  /** Messages that could not be handled, and promises of the library that nobody caught. */
  errors = 0

  received(kind, size) {
    this.in_by_kind[kind] += 1
    this.bytes.in += size
  }

  sent(kind, size) {
    this.out_by_kind[kind] += 1
    this.bytes.out += size
  }

  get messages() {
    return { in: total(this.in_by_kind), out: total(this.out_by_kind) }
  }

  /** All counters as one plain object; `open`, `queued` and `served_ms` are known elsewhere. */
  current({ open, queued, served_ms }) {
    return {
      sockets: { ...this.sockets, open },
      messages: {
        ...this.messages,
        in_by_kind: { ...this.in_by_kind },
        out_by_kind: { ...this.out_by_kind },
        bytes_in: this.bytes.in,
        bytes_out: this.bytes.out,
        queued,
        served_ms,
        withheld: this.withheld,
      },
      errors: this.errors,
    }
  }
}
