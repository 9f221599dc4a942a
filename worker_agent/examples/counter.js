// A counter that all who open this page share through a relay, and a list of who clicked:
//   counter.html?relay=ws://127.0.0.1:8081&document=<automerge document id>
//
// An entry of the list is marked `saved` once the relay has it.

import { Automerge, Counter, initializeWasm, Repo } from "@automerge/automerge-repo/slim";
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket";

const FIRST_ACTOR = "0".repeat(31) + "1";
const byId = (id) => document.getElementById(id);

// The document begins with one change that is the same for whoever makes it, so that anyone may
// be the first to open it.
const firstState = () => Automerge.save(
  Automerge.change(Automerge.init({ actor: FIRST_ACTOR }), { time: 0 }, (doc) => {
    doc.count = new Counter(0);
    doc.clicks = [];
  }),
);

await initializeWasm(fetch("automerge.wasm"));
const given = new URLSearchParams(location.search);
const repo = new Repo({ network: [new WebSocketClientAdapter(given.get("relay"))] });
let relayHeads = [];
repo.synchronizer.on("sync-state", ({ syncState }) => {
  relayHeads = syncState.theirHeads ?? [];
  queueMicrotask(show); // this event comes before the document has what came with it
});
const handle = repo.import(firstState(), { docId: given.get("document") });
handle.on("change", show);

function show() {
  const doc = handle.doc();
  const known = relayHeads.length > 0 && Automerge.hasHeads(doc, relayHeads);
  const atRelay = known ? Automerge.view(doc, relayHeads).clicks : [];
  const saved = new Set(atRelay.map(({ id }) => id));
  if (known) byId("status").textContent = "connected";
  byId("count").textContent = String(doc.count);
  byId("clicks").replaceChildren(...doc.clicks.map(({ id, who }) => {
    const entry = document.createElement("li");
    entry.textContent = entry.dataset.who = who;
    entry.classList.toggle("saved", saved.has(id));
    return entry;
  }));
}

byId("add").addEventListener("click", () => {
  handle.change((doc) => {
    doc.count.increment(1);
    doc.clicks.push({ id: crypto.randomUUID(), who: byId("name").value });
  });
});
show();
