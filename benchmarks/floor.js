// What one delivery costs at the least: the Automerge calls for it (receive, see what appeared,
// answer) in a bare loop. The relay's half is made here too, and not counted.

import * as A from "@automerge/automerge/slim";
import {
  baseBytes, initSyncState, load, makeEdit, ready, shownEdits,
} from "../worker_agent/page/src/document.js";

// With the calls of Automerge's WASM core, which the load's connections use.
globalThis.coreFloor = async ({ observers, edits, rounds, payloadBytes }, wasmUrl) => {
  await ready(wasmUrl);
  let spentMs = 0;
  let deliveries = 0;
  for (let round = 0; round < rounds; round += 1) {
    const relay = load(baseBytes(0, payloadBytes));
    const peers = Array.from({ length: observers }, () => {
      const document = load(baseBytes(0, payloadBytes));
      document.updateDiffCursor();
      return { document, theirs: initSyncState(), ours: initSyncState() };
    });
    for (const peer of peers) settle(relay, peer);
    for (let edit = 0; edit < edits; edit += 1) {
      const sent = { intendedUs: 0, startedUs: 0, writer: 0, worker: "floor" };
      // Each observer in turn is the writer, as users are: a new author costs a document more.
      const writer = peers[edit % observers];
      makeEdit(writer.document, "map", edit, sent, payloadBytes);
      settle(relay, writer);
      for (const peer of peers) {
        if (peer === writer) continue;
        const message = relay.generateSyncMessage(peer.theirs);
        const before = performance.now();
        peer.document.receiveSyncMessage(peer.ours, message);
        const shown = [...shownEdits(peer.document)].length;
        const answer = peer.document.generateSyncMessage(peer.ours);
        if (round > 0) {
          spentMs += performance.now() - before;
          deliveries += shown;
        }
        if (answer) relay.receiveSyncMessage(peer.theirs, answer);
      }
    }
    for (const peer of peers) {
      peer.document.free();
      peer.ours.free();
      peer.theirs.free();
    }
    relay.free();
  }
  return spentMs / deliveries;
};

function settle(relay, peer) {
  for (let turn = 0; turn < 10; turn += 1) {
    const down = relay.generateSyncMessage(peer.theirs);
    if (down) peer.document.receiveSyncMessage(peer.ours, down);
    const up = peer.document.generateSyncMessage(peer.ours);
    if (up) relay.receiveSyncMessage(peer.theirs, up);
    if (!down && !up) return;
  }
}

// With the calls of Automerge's public JavaScript API, which applications use.
globalThis.publicFloor = async ({ observers, edits, rounds, payloadBytes }, wasmUrl) => {
  await A.initializeWasm(wasmUrl);
  let spentMs = 0;
  let deliveries = 0;
  for (let round = 0; round < rounds; round += 1) {
    let relay = A.from({ log: {} });
    const bytes = A.save(relay);
    const peers = Array.from({ length: observers }, () => ({
      document: A.load(bytes), theirs: A.initSyncState(), ours: A.initSyncState(),
    }));
    const down = (peer, count) => {
      let message;
      [peer.theirs, message] = A.generateSyncMessage(relay, peer.theirs);
      if (!message) return false;
      const before = performance.now();
      [peer.document, peer.ours] = A.receiveSyncMessage(peer.document, peer.ours, message, {
        patchCallback: (patches) => {
          if (count) deliveries += patches.length;
        },
      });
      let answer;
      [peer.ours, answer] = A.generateSyncMessage(peer.document, peer.ours);
      if (count) spentMs += performance.now() - before;
      if (answer) [relay, peer.theirs] = A.receiveSyncMessage(relay, peer.theirs, answer);
      return true;
    };
    const up = (peer) => {
      let message;
      [peer.ours, message] = A.generateSyncMessage(peer.document, peer.ours);
      if (message) [relay, peer.theirs] = A.receiveSyncMessage(relay, peer.theirs, message);
    };
    for (const peer of peers) {
      up(peer);
      while (down(peer, false)) up(peer);
    }
    for (let edit = 0; edit < edits; edit += 1) {
      const writer = peers[edit % observers];
      writer.document = A.change(writer.document, (draft) => {
        draft.log[edit] = new A.ImmutableString("x".repeat(payloadBytes));
      });
      up(writer);
      while (down(writer, false)) up(writer);
      for (const peer of peers) if (peer !== writer) down(peer, round > 0);
    }
  }
  return spentMs / deliveries;
};

// What Chromium takes for a message in and a message out, with nothing done to either: CPU is
// measured by the caller while this counts.
globalThis.echo = (url, sockets, bytes) => {
  globalThis.echoed = 0;
  const answer = new Uint8Array(bytes);
  for (let i = 0; i < sockets; i += 1) {
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onmessage = () => {
      globalThis.echoed += 1;
      socket.send(answer);
    };
  }
};
