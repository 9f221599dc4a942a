/** `/.manifest.tonk`: what a Tonk client fetches before it connects (a "slim bundle"). */

import { save } from "@automerge/automerge"
import { strToU8, zipSync } from "fflate"

/**
 * A zip with `manifest.json` and the root document as it is now.
 *
 * The names are those of Tonk's bundles: a document is stored under the first two characters of its
 * id and then the rest. Built anew for each request, because that is what the original does and so
 * what a connection costs it.
 */
export function manifestZip(rootHandle, url) {
  const rootId = rootHandle.documentId
  const manifest = {
    manifestVersion: 1,
    version: { major: 1, minor: 0 },
    rootId,
    entrypoints: [],
    networkUris: [url],
    xNotes: "relay-load local relay",
    xVendor: null,
  }
  return zipSync({
    "manifest.json": strToU8(JSON.stringify(manifest, null, 2)),
    [`storage/${rootId.slice(0, 2)}/${rootId.slice(2)}/snapshot/bundle_export`]: save(rootHandle.doc()),
  })
}
