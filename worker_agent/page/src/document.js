// What a document looks like, and the one deterministic change that it begins with.
//
// Automerge's WASM core is used directly: the same calls as the JavaScript wrapper makes, less
// the JavaScript copy of every document. A receive costs half, a replica less memory, and a
// Tonk client keeps its documents in WASM as well.

import init, * as core from "automerge-core";

const FIRST_ACTOR = "0".repeat(31) + "1";
const ROOT = "_root";
const LOG = "log";

let exports = null;
export async function ready(wasmUrl) {
  exports = await init({ module_or_path: wasmUrl });
}
export const wasmBytes = () => exports?.memory.buffer.byteLength ?? 0;
export const { initSyncState, decodeSyncMessage } = core;

const bases = new Map();

// Returns the bytes of a document in its first state: the same for whoever makes it, so that
// several workers may create one document. `history` edits are already in it.
export function baseBytes(history, payloadBytes) {
  const name = `${history}:${payloadBytes}`;
  if (!bases.has(name)) {
    const document = core.create({ actor: FIRST_ACTOR });
    const log = document.putObject(ROOT, LOG, {});
    document.putObject(ROOT, "text", "");
    document.put(ROOT, "count", 0, "counter");
    document.commit(null, 0);
    for (let i = 0; i < history; i += 1) {
      document.put(log, `h${i}`, "x".repeat(payloadBytes), "str");
      document.commit(null, 0);
    }
    bases.set(name, document.save());
    document.free();
  }
  return bases.get(name);
}

export const empty = () => core.create({});
export const load = (bytes) => core.load(bytes, {});

const OBJECTS = new WeakMap();

function objects(document) {
  let found = OBJECTS.get(document);
  if (!found) {
    found = {
      log: document.getWithType(ROOT, LOG)?.[1],
      text: document.getWithType(ROOT, "text")?.[1],
    };
    if (found.log) OBJECTS.set(document, found);
  }
  return found;
}

// Makes one edit and returns its hash. Every kind leaves the edit's number in the log, so that
// other replicas can tell which edit they show; its value carries what they need to time it.
export function makeEdit(document, kind, edit, sent, payloadBytes) {
  const { log, text } = objects(document);
  const head = `${sent.intendedUs}|${sent.startedUs}|${sent.writer}|${sent.worker}|`;
  const payload = kind === "map" ? "x".repeat(payloadBytes) : "";
  document.put(log, String(edit), head + payload, "str");
  if (kind === "text") {
    document.splice(text, Math.floor(Math.random() * (document.length(text) + 1)), 0, "x".repeat(Math.max(1, payloadBytes)));
  } else if (kind === "counter") {
    document.increment(ROOT, "count", 1);
  }
  const hash = document.commit(null, Math.floor(sent.startedUs / 1e6));
  // The next diff shall hold what others did, not this.
  document.updateDiffCursor();
  return hash;
}

// Yields [edit, sent] for each edit that appeared since the last diff.
export function* shownEdits(document) {
  for (const patch of document.diffIncremental()) {
    if (patch.action !== "put" || patch.path.length !== 2 || patch.path[0] !== LOG) continue;
    const value = patch.value;
    if (typeof value !== "string") continue;
    const [intendedUs, startedUs, writer, worker] = value.split("|", 4);
    const edit = Number(patch.path[1]);
    if (worker === undefined || Number.isNaN(edit)) continue;
    yield [edit, {
      intendedUs: Number(intendedUs), startedUs: Number(startedUs), writer: Number(writer), worker,
    }];
  }
}

// Returns the numbers of all edits that a document holds, as a Set.
export function heldEdits(document) {
  const { log } = objects(document);
  if (!log) return new Set();
  return new Set(document.keys(log).map(Number).filter((edit) => !Number.isNaN(edit)));
}
