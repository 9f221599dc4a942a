/**
 * The faults that the relay can be given: their names, units, ranges and present values.
 *
 * The table is the only place that names them; the command line's flags, `GET`/`PUT /faults` and
 * `--help` are all read from it.
 */

/** A fault that does not exist, or a value that it cannot take. Its message is for the user. */
export class FaultError extends Error {}

const number = (unit, highest, help, initial = 0) => ({ kind: "number", unit, lowest: 0, highest, initial, help })
const whole = (unit, highest, help) => ({ kind: "whole", unit, lowest: 0, highest, initial: null, help })
const flag = help => ({ kind: "flag", initial: false, help })

/** Every fault by name. `initial` is its value when it is off; `null` means that it has no limit. */
export const FAULTS = Object.freeze({
  delay_in_ms: number("ms", 600_000, "extra delay of each sync or request message on its way in"),
  delay_out_ms: number("ms", 600_000, "extra delay of each sync or request message on its way out"),
  service_ms: number("ms", 60_000, "mean time to serve one incoming message; one at a time for the whole relay"),
  service_noise: number("", 1, "service times lie within mean * (1 - noise) and mean * (1 + noise), uniformly"),
  batch_ms: number("ms", 60_000, "shortest time between two broadcasts of one document (automerge-repo: 100)", 100),
  stall_s: number("s", 3_600, "no incoming message is handled for so long, from now on; 0 ends a stall"),
  max_connections: whole("", 1_000_000, "refuse more connections than this with HTTP 503 (null: no limit)"),
  drop_percent_per_minute: number("%", 100, "share of the open connections that is dropped in a minute"),
  leak_mb_per_minute: number("MB", 100_000, "memory retained for good, steadily"),
  die_at_mb: { ...number("MB", 1_000_000, "SIGKILL itself when so much has leaked (null: never)"), initial: null },
  metrics_fail: flag("GET /metrics answers 500"),
  metrics_off: flag("GET /metrics answers 404, as a relay that has none"),
  metrics_delay_ms: number("ms", 600_000, "GET /metrics answers so much later"),
  manifest_delay_ms: number("ms", 600_000, "GET /.manifest.tonk answers so much later"),
  accept_silent: flag("accept a socket and then say nothing on it"),
  garbage: flag("send random bytes after accepting a socket, and in reply to whatever it sends"),
  close_at_once: flag("accept a socket and close it at once with code 1011"),
  no_documents: flag("answer doc-unavailable to every request and ignore every sync message"),
  protocol_version: { kind: "text", initial: null, help: "protocol version named in the handshake's reply (null: 1)" },
  announce: flag("offer every document to every peer, as a samod relay does by default"),
})

/** Checks one fault's value and returns it. Throws FaultError saying what would have been right. */
export function checkFault(name, value) {
  const fault = Object.hasOwn(FAULTS, name) ? FAULTS[name] : undefined
  if (fault === undefined) {
    throw new FaultError(`there is no fault "${name}"; there are: ${Object.keys(FAULTS).join(", ")}`)
  }
  if (value === null && fault.initial === null) return value
  const shown = JSON.stringify(value)
  if (fault.kind === "flag") {
    if (typeof value !== "boolean") throw new FaultError(`${name} must be true or false, not ${shown}`)
    return value
  }
  if (fault.kind === "text") {
    if (typeof value !== "string" || value.length === 0 || value.length > 32) {
      throw new FaultError(`${name} must be a text of 1 to 32 characters or null, not ${shown}`)
    }
    return value
  }
  const inRange = typeof value === "number" && value >= fault.lowest && value <= fault.highest
  if (!inRange || (fault.kind === "whole" && !Number.isInteger(value))) {
    const noun = fault.kind === "whole" ? "whole number" : "number"
    const unit = fault.unit === "" ? "" : ` (${fault.unit})`
    const none = fault.initial === null ? " or null" : ""
    throw new FaultError(`${name} must be a ${noun} from ${fault.lowest} to ${fault.highest}${unit}${none}, not ${shown}`)
  }
  return value
}

/** The present values, as properties of the same names, and those who want to hear of a change. */
export class Faults {
  #listeners = []

  constructor(values = {}) {
    for (const [name, { initial }] of Object.entries(FAULTS)) this[name] = initial
    this.change(values)
  }

  /** Calls `listener(names)` after each change, with the set of faults that were named in it. */
  onChange(listener) {
    this.#listeners.push(listener)
  }

  /** Sets some faults, all of them or (FaultError) none. */
  change(values) {
    if (values === null || typeof values !== "object" || Array.isArray(values)) {
      throw new FaultError('faults are a JSON object such as {"delay_in_ms": 200}')
    }
    const checked = Object.entries(values).map(([name, value]) => [name, checkFault(name, value)])
    Object.assign(this, Object.fromEntries(checked))
    const names = new Set(checked.map(([name]) => name))
    for (const listener of this.#listeners) listener(names)
  }

  /** A plain copy of all values. */
  current() {
    return Object.fromEntries(Object.keys(FAULTS).map(name => [name, this[name]]))
  }
}
