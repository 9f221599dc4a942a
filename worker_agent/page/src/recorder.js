// Samples, in columns, kept until the agent fetches them (about once a second).
//
// The columns' names, types and units are declared in run_store/samples.py.

import { nowUs } from "./clock.js";

const COLUMNS = {
  edits: [
    "edit", "document", "generation", "connection",
    "intended_us", "started_us", "acknowledged_us", "error", "held",
  ],
  deliveries: [
    "edit", "document", "generation", "writer", "observer",
    "intended_us", "sent_us", "seen_us", "same_worker", "repeat", "weight",
  ],
  connections: [
    "at_us", "connection", "document", "generation", "event", "duration_ms", "tries", "cause",
  ],
  errors: ["at_us", "type", "message", "connection", "document", "weight"],
  replicas: [
    "at_us", "connection", "document", "generation",
    "in_sync", "heads", "edits", "missing", "changed_us",
  ],
};

const ERRORS_KEPT_PER_S = 100;

export class Recorder {
  constructor() {
    this.deliveriesPerS = Infinity;
    this.#clear();
    this.window = { startUs: 0, deliveries: 0, keep: 1, errors: new Map() };
  }

  #clear() {
    this.rows = Object.fromEntries(Object.keys(COLUMNS).map((kind) => [kind, []]));
  }

  // Starts a new second: the share of deliveries to keep follows from the second before, so it
  // is settled before any delivery that it applies to, and weighting by its inverse is unbiased.
  #turn(atUs) {
    const window = this.window;
    const lengthS = (atUs - window.startUs) / 1e6;
    if (lengthS < 1) return;
    const rate = lengthS < 5 ? window.deliveries / lengthS : 0;
    for (const [type, count] of window.errors) {
      if (count > ERRORS_KEPT_PER_S) {
        const more = count - ERRORS_KEPT_PER_S;
        this.rows.errors.push([atUs, type, `${more} more of this kind in one second`, null, null, more]);
      }
    }
    this.window = {
      startUs: atUs,
      deliveries: 0,
      keep: rate > this.deliveriesPerS ? this.deliveriesPerS / rate : 1,
      errors: new Map(),
    };
  }

  edit(row) {
    this.rows.edits.push(row);
  }

  delivery(edit, document, generation, observer, sent, seenUs, sameWorker, repeat) {
    this.#turn(seenUs);
    this.window.deliveries += 1;
    const keep = this.window.keep;
    if (keep < 1 && Math.random() >= keep) return;
    this.rows.deliveries.push([
      edit, document, generation, sent.writer, observer,
      sent.intendedUs, sent.startedUs, seenUs, sameWorker, repeat, 1 / keep,
    ]);
  }

  connection(connection, document, generation, event, durationMs, tries, cause = null) {
    this.rows.connections.push([
      nowUs(), connection, document, generation, event, durationMs, tries, cause,
    ]);
  }

  error(type, message, connection = null, document = null) {
    const atUs = nowUs();
    this.#turn(atUs);
    const errors = this.window.errors;
    const count = (errors.get(type) ?? 0) + 1;
    errors.set(type, count);
    if (count > ERRORS_KEPT_PER_S) return;
    this.rows.errors.push([atUs, type, String(message).slice(0, 500), connection, document, 1]);
  }

  replica(row) {
    this.rows.replicas.push(row);
  }

  // Gives all rows since the last call, as columns, and forgets them.
  drain() {
    this.#turn(nowUs());
    const drained = {};
    for (const [kind, names] of Object.entries(COLUMNS)) {
      const rows = this.rows[kind];
      if (rows.length === 0) continue;
      drained[kind] = Object.fromEntries(names.map((name, i) => [name, rows.map((row) => row[i])]));
    }
    this.#clear();
    return drained;
  }
}
