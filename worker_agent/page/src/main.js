// The page's one interface to its agent. Everything else happens by itself: nothing crosses
// to the agent for each edit.

import { Agenda } from "./agenda.js";
import { nowUs, setClock } from "./clock.js";
import { Connection } from "./connection.js";
import { baseBytes, ready, wasmBytes } from "./document.js";
import { Recorder } from "./recorder.js";

const recorder = new Recorder();
const connections = new Map();
const identities = new Map(); // "document:generation" -> { documentId, first }
const agenda = new Agenda(run);
let settings = {};
let lagMs = 0;

function connectionOf(index, document) {
  if (!connections.has(index)) {
    connections.set(index, new Connection({
      index,
      document,
      settings,
      recorder,
      identify: (generation) => {
        const { documentId, first } = identities.get(`${document}:${generation}`);
        return { documentId, creator: first === index };
      },
    }));
  }
  return connections.get(index);
}

function run({ kind, connection: index, document, generation, ...event }) {
  if (kind === "open") connectionOf(index, document).open(generation);
  else if (kind === "edit") connectionOf(index, document).edit({ generation, ...event });
  else if (kind === "join") connections.get(index)?.joinDocument(generation);
  else if (kind === "drop") connections.get(index)?.drop();
  else if (kind === "offline") connections.get(index)?.cutOff(settings.network.offline_ms);
  else if (kind === "close") {
    connections.get(index)?.close();
    connections.delete(index);
  }
}

const LAG_EVERY_MS = 100;
let expected = performance.now() + LAG_EVERY_MS;
setInterval(() => {
  const now = performance.now();
  lagMs = Math.max(lagMs, now - expected);
  expected = Math.max(now, expected) + LAG_EVERY_MS;
  if (expected < now + LAG_EVERY_MS / 2) expected = now + LAG_EVERY_MS;
}, LAG_EVERY_MS);

const all = () => [...connections.values()];

globalThis.relayLoad = {
  async start(given, wasmUrl) {
    settings = given;
    recorder.deliveriesPerS = given.deliveries_per_s;
    await ready(wasmUrl);
    baseBytes(settings.history, settings.payload_bytes);
  },

  now: () => performance.now(),
  setClock,

  // Takes an order's events, as columns, and the names of the documents in them.
  plan({ documents, events }) {
    for (const [key, documentId, first] of documents) identities.set(key, { documentId, first });
    const names = Object.keys(events);
    agenda.add(events.atUs.map((_, i) => {
      const event = Object.fromEntries(names.map((name) => [name, events[name][i]]));
      if (event.kind === "edit") event.intendedUs = event.atUs;
      return event;
    }));
  },

  // The phase is over: edits that no timer came to are missed; what lay beyond its end (it was
  // cut short) was never offered. Returns how many are made and not acknowledged.
  settle(giveUp) {
    const now = nowUs();
    agenda.take((one) => one.atUs > now);
    for (const event of agenda.take((one) => one.kind === "edit")) {
      recorder.edit([
        event.edit, event.document, event.generation, event.connection,
        event.intendedUs, null, null, "missed", false,
      ]);
    }
    let pending = 0;
    for (const connection of all()) {
      for (const replica of connection.replicas.values()) pending += replica.settle(giveUp);
    }
    return pending;
  },

  // Records every replica of the documents in `expected` ("document:generation" -> edits), and
  // leaves those documents if told to. Returns how many are not in sync.
  check(wanted, leave) {
    let behind = 0;
    for (const connection of all()) {
      for (const replica of [...connection.replicas.values()]) {
        const edits = wanted[`${connection.document}:${replica.generation}`];
        if (!edits) continue;
        if (!replica.inSync) behind += 1;
        replica.check(edits);
        if (leave) connection.leaveDocument(replica.generation);
      }
    }
    return behind;
  },

  behind: () => all().filter((one) => one.wanted && ![...one.replicas.values()].every((r) => r.inSync)).length,

  closeAll() {
    agenda.take(() => true);
    for (const connection of all()) connection.close();
    connections.clear();
  },

  // Gives all samples since the last call and the page's state, as one JSON text.
  drain() {
    const heapBytes = performance.memory?.usedJSHeapSize ?? 0;
    const state = {
      atUs: nowUs(),
      lagMs,
      wanted: all().filter((one) => one.wanted).length,
      open: all().filter((one) => one.isOpen).length,
      synced: all().filter((one) => one.isSynced).length,
      healthy: all().filter((one) => one.isHealthy).length,
      attempted: all().filter((one) => one.wanted && one.tries > 0).length,
      pending: all().reduce(
        (sum, one) => sum + [...one.replicas.values()].reduce((n, r) => n + r.pending.length, 0), 0,
      ),
      heapBytes,
      memoryBytes: heapBytes + wasmBytes(),
    };
    lagMs = 0;
    return JSON.stringify({ rows: recorder.drain(), state });
  },
};
