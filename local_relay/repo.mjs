/** The automerge-repo side of the relay: a Repo that keeps documents in memory and announces none. */

import { readFileSync } from "node:fs"
import { Repo } from "@automerge/automerge-repo"
import { WebSocketServerAdapter } from "@automerge/automerge-repo-network-websocket"

/** automerge-repo has changed inside in a way that the relay cannot work with. */
export class LibraryError extends Error {}

/** The installed version of automerge-repo. */
export const LIBRARY_VERSION = JSON.parse(
  readFileSync(new URL("../../package.json", import.meta.resolve("@automerge/automerge-repo"))),
).version

const PEER_ID = `local-relay-${process.pid}`

/** Makes the Repo that serves the sockets of `adapterSide`. Throws LibraryError. */
export function createRepo({ adapterSide, faults }) {
  makeBatchingSettable(faults)
  const adapter = new WebSocketServerAdapter(adapterSide)
  const repo = new Repo({
    peerId: PEER_ID,
    network: [adapter],
    sharePolicy: () => Promise.resolve(faults.announce),
  })
  forgetUninterestedPeers(repo, adapter, faults)
  // The Repo itself keeps what each peer said of itself for ever.
  repo.networkSubsystem.on("peer-disconnected", ({ peerId }) => delete repo.peerMetadataByPeerId[peerId])
  return repo
}

/**
 * Keeps peers out of the list of those to whom documents might be announced, unless they are.
 *
 * For each message the library asks for every connected peer whether the document should be
 * announced to it; with 1000 connections that cost 2.2 ms of CPU for a delivery instead of 0.8 ms
 * (measured). Peers that ask for a document are in that document's own list and need no other.
 */
function forgetUninterestedPeers(repo, adapter, faults) {
  const { synchronizer } = repo
  if (typeof synchronizer.addPeer !== "function") throw new LibraryError(changed("addPeer is gone"))
  const addPeer = synchronizer.addPeer.bind(synchronizer)
  synchronizer.addPeer = peerId => {
    if (faults.announce) addPeer(peerId)
  }
  faults.onChange(names => {
    if (!names.has("announce")) return
    if (faults.announce) Object.keys(adapter.sockets).forEach(addPeer)
    repo.shareConfigChanged()
  })
}

/** The document that `/.manifest.tonk` names: an empty root directory in the form of Tonk's file system. */
export function createRootDocument(repo) {
  const now = Date.now()
  return repo.create({ type: "directory", name: "/", timestamps: { created: now, modified: now }, children: [] })
}

/**
 * Makes `batch_ms` the interval at which a document's changes are broadcast.
 *
 * DocSynchronizer (2.5.6) passes its field `syncDebounceRate = 100` to asyncThrottle when it is
 * constructed, which broadcasts at once when the last broadcast is at least so long ago, and
 * otherwise at the end of that interval (`wait = lastCall + delay - Date.now()`). The class is not
 * exported and the field is set inside its constructor, so the base class is made to hand out
 * objects on which that one field becomes an object whose number is the present batch_ms. What is
 * relied on: `repo.synchronizer.docSynchronizers`, the field's name, its value 100, and that the
 * constructor throttles by it. The acknowledgement to a writer is not batched by the library.
 */
function makeBatchingSettable(faults) {
  const DocSynchronizer = documentSynchronizer().constructor
  if (!/asyncThrottle\([^;]*this\.syncDebounceRate/s.test(String(DocSynchronizer))) {
    throw new LibraryError(changed("its constructor does not throttle by this.syncDebounceRate"))
  }
  const interval = { valueOf: () => faults.batch_ms }
  const original = Object.getPrototypeOf(DocSynchronizer)
  let replaced
  Object.setPrototypeOf(DocSynchronizer, function (...parameters) {
    return new Proxy(Reflect.construct(original, parameters, new.target), {
      defineProperty(target, name, descriptor) {
        if (name !== "syncDebounceRate") return Reflect.defineProperty(target, name, descriptor)
        replaced = descriptor.value
        return Reflect.defineProperty(target, name, { ...descriptor, value: interval })
      },
    })
  })
  if (documentSynchronizer().syncDebounceRate !== interval || replaced !== 100) {
    throw new LibraryError(changed(`its syncDebounceRate is ${replaced}, not 100`))
  }
}

/** The synchronizer of a document in a Repo of its own, which nobody else sees. */
function documentSynchronizer() {
  const repo = new Repo()
  const { documentId } = repo.create()
  const found = repo.synchronizer?.docSynchronizers?.[documentId]
  if (found === undefined) throw new LibraryError(changed("a document's synchronizer cannot be found"))
  return found
}

const changed = what =>
  `the relay cannot work with automerge-repo ${LIBRARY_VERSION}: ${what}; install the version in package-lock.json (npm ci)`
