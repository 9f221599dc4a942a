// One replica of one document on one connection: it syncs, makes edits and sees others' edits.

import { nowUs } from "./clock.js";
import {
  baseBytes, decodeSyncMessage, empty, heldEdits, initSyncState, load, makeEdit, shownEdits,
} from "./document.js";

export class Replica {
  constructor({ connection, generation, documentId, creator, settings, recorder }) {
    this.connection = connection;
    this.generation = generation;
    this.documentId = documentId;
    this.settings = settings;
    this.recorder = recorder;
    this.handle = creator
      ? load(baseBytes(settings.history, settings.payload_bytes))
      : empty();
    this.handle.updateDiffCursor();
    this.state = null; // of the sync with the relay, while there is one
    this.synced = false; // in sync with the relay's heads at some instant on this socket
    this.everSynced = false; // so that what comes in now was shown to a user who was there
    this.pending = []; // edits made and not yet acknowledged, oldest first
    this.waiting = []; // edits that are due and have no replica to be made on
    this.seen = new Set();
    this.changedUs = null;
    this.timer = null;
  }

  get ids() {
    return [this.connection.index, this.connection.document, this.generation];
  }

  // The handshake is done: start to sync on this socket.
  begin() {
    this.state?.free();
    this.state = initSyncState();
    this.synced = false;
    this.beganMs = performance.now();
    this.requested = this.handle.getHeads().length === 0;
    this.#send(this.requested ? "request" : "sync");
    this.timer = setTimeout(() => {
      this.recorder.error(
        "document_timeout",
        `the document did not arrive within ${this.settings.document_timeout_ms} ms`,
        this.connection.index,
        this.connection.document,
      );
    }, this.settings.document_timeout_ms);
  }

  // The socket is gone; edits go on locally, as they do in a local-first application.
  pause() {
    clearTimeout(this.timer);
    this.synced = false;
    this.state?.free();
    this.state = null;
  }

  // The relay does not know the document: it begins here, with the change that it would begin
  // with anywhere.
  unavailable() {
    if (!this.state || this.everSynced) return;
    if (this.handle.getHeads().length === 0) {
      this.handle.free();
      this.handle = load(baseBytes(this.settings.history, this.settings.payload_bytes));
      this.handle.updateDiffCursor();
    }
    this.state.free();
    this.state = initSyncState();
    this.#send("sync");
  }

  receive(data) {
    if (!this.state) return;
    // The message's heads are read only while something waits for them: decoding costs as much
    // as applying.
    const heads = this.synced && this.pending.length === 0 ? null : decodeSyncMessage(data).heads;
    this.handle.receiveSyncMessage(this.state, data);
    const atUs = nowUs();
    if (this.everSynced) this.#deliver(atUs);
    else this.handle.updateDiffCursor();
    if (heads) {
      if (!this.synced) this.#checkSynced(heads, atUs);
      if (this.pending.length > 0) this.#acknowledge(heads, atUs);
    }
    this.#send("sync");
  }

  #deliver(atUs) {
    const [index, document, generation] = this.ids;
    for (const [edit, sent] of shownEdits(this.handle)) {
      const again = this.seen.has(edit);
      this.seen.add(edit);
      this.changedUs = atUs;
      this.recorder.delivery(
        edit, document, generation, index, sent, atUs, sent.worker === this.settings.worker,
        again ? 2 : 1,
      );
    }
  }

  #checkSynced(heads, atUs) {
    // Some relays answer a request for an unknown document by an empty message alone.
    if (heads.length === 0 && this.handle.getHeads().length === 0) this.unavailable();
    // Heads that we lack mean that more is to come; no heads at all, that the relay has nothing.
    if (heads.length === 0 || this.handle.getMissingDeps(heads).length > 0) return;
    clearTimeout(this.timer);
    this.synced = true;
    if (!this.everSynced) {
      this.everSynced = true;
      this.changedUs ??= atUs;
    }
    this.connection.record("synced", this.generation, performance.now() - this.connection.beganMs);
    const waiting = this.waiting;
    this.waiting = [];
    for (const planned of waiting) this.edit(planned, true);
  }

  #acknowledge(heads, atUs) {
    const newest = heads.filter((head) => this.pending.some((edit) => edit.hash === head));
    let uncovered = null;
    if (newest.length === 0) {
      if (this.handle.getMissingDeps(heads).length > 0) return;
      uncovered = new Set(this.handle.getChangesMeta(heads).map((change) => change.hash));
    } else {
      // Own edits form one line: a head covers all that were made before it.
      const last = this.pending.findLastIndex((edit) => newest.includes(edit.hash));
      uncovered = new Set(this.pending.slice(last + 1).map((edit) => edit.hash));
    }
    const left = [];
    for (const edit of this.pending) {
      if (uncovered.has(edit.hash)) left.push(edit);
      else this.#finish(edit, atUs, null);
    }
    this.pending = left;
  }

  // Makes an edit now, or keeps it until this replica has the document.
  edit(planned, held = false) {
    if (!this.everSynced) {
      this.waiting.push(planned);
      return;
    }
    const startedUs = nowUs();
    const sent = {
      intendedUs: planned.intendedUs,
      startedUs,
      writer: this.connection.index,
      worker: this.settings.worker,
    };
    let hash;
    try {
      hash = makeEdit(this.handle, this.settings.edit, planned.edit, sent, this.settings.payload_bytes);
    } catch (error) {
      this.recorder.error("edit_failed", error.message, ...this.ids.slice(0, 2));
      this.#finish({ ...planned, startedUs, held }, null, "edit_failed");
      return;
    }
    this.seen.add(planned.edit);
    this.changedUs = startedUs;
    this.pending.push({ ...planned, startedUs, hash, held });
    if (this.state) this.#send("sync");
  }

  #finish(edit, acknowledgedUs, error) {
    const [index, document, generation] = this.ids;
    this.recorder.edit([
      edit.edit, document, generation, index,
      edit.intendedUs, edit.startedUs ?? null, acknowledgedUs, error, edit.held ?? false,
    ]);
  }

  // Ends a phase's edits: those that wait for a connection that failed have failed. Returns how
  // many may still come; with `giveUp` those are written as they are.
  settle(giveUp) {
    const { failure, isOpen } = this.connection;
    if (giveUp || (failure && !isOpen)) {
      const reason = isOpen ? "no_document" : failure ?? "not_connected";
      for (const planned of this.waiting) this.#finish({ ...planned, held: true }, null, reason);
      this.waiting = [];
    }
    if (giveUp) {
      for (const edit of this.pending) this.#finish(edit, null, null);
      this.pending = [];
    }
    return this.pending.length + this.waiting.length;
  }

  get inSync() {
    return this.synced && this.pending.length === 0;
  }

  // Records what this replica shows, for the comparison of all replicas.
  check(expected) {
    const held = heldEdits(this.handle);
    const missing = expected.filter((edit) => !held.has(edit)).slice(0, 1000);
    this.recorder.replica([
      nowUs(), ...this.ids, this.inSync, this.handle.getHeads().toSorted().join(","),
      held.size, missing, this.changedUs,
    ]);
  }

  #send(type) {
    const data = this.handle.generateSyncMessage(this.state);
    if (data) this.connection.send(type, this.documentId, data);
  }

  free() {
    this.settle(true);
    this.pause();
    this.handle.free();
  }
}
