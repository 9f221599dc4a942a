/** The relay's public HTTP endpoints, in the form of the Tonk relay's. */

import { createServer } from "node:http"
import { totalmem } from "node:os"
import { setTimeout as wait } from "node:timers/promises"
import { manifestZip } from "./manifest.mjs"
import { LIBRARY_VERSION } from "./repo.mjs"
import { refuse } from "./sockets.mjs"

const VERSION = `local-relay (automerge-repo ${LIBRARY_VERSION})`

// Pages of any origin may read the answers, as with the original.
const CORS = {
  "access-control-allow-origin": "*",
  "access-control-allow-methods": "*",
  "access-control-allow-headers": "*",
}

/** The HTTP server of the relay. `rootHandle` is the manifest's document; `url()` the WebSocket's address. */
export function createPublicServer({ faults, counters, sockets, rootHandle, url }) {
  const answers = {
    "/": () => text("👍 relay-load local relay is running\n"),
    "/metrics": () => metrics({ faults, counters, sockets }),
    "/.manifest.tonk": () => manifest({ faults, rootHandle, url }),
  }
  const server = createServer(async (request, response) => {
    const answer = Object.hasOwn(answers, pathOf(request)) ? answers[pathOf(request)] : undefined
    let reply
    if (request.method === "OPTIONS") reply = { status: 204, headers: {}, body: "" }
    else if (answer === undefined) reply = text("there is nothing here\n", 404)
    else if (request.method !== "GET" && request.method !== "HEAD") reply = text("only GET is answered here\n", 405)
    else reply = await answer()
    response.writeHead(reply.status, { ...CORS, ...reply.headers, "content-length": Buffer.byteLength(reply.body) })
    response.end(request.method === "HEAD" ? undefined : reply.body)
  })
  server.on("upgrade", (request, tcp, head) => {
    if (pathOf(request) === "/") sockets.upgrade(request, tcp, head)
    else refuse(tcp, 404, "Not Found", "the WebSocket is at /\n")
  })
  return server
}

/** The path of a request without its query. */
export const pathOf = request => request.url.split("?", 1)[0]

/** A plain text answer. */
export const text = (body, status = 200) => ({ status, headers: { "content-type": "text/plain; charset=utf-8" }, body })

/** A JSON answer. */
export const json = (value, status = 200) => ({
  status,
  headers: { "content-type": "application/json", "cache-control": "no-store" },
  body: `${JSON.stringify(value)}\n`,
})

/** `/.manifest.tonk`: a zip to download. */
async function manifest({ faults, rootHandle, url }) {
  if (faults.manifest_delay_ms > 0) await wait(faults.manifest_delay_ms)
  return {
    status: 200,
    headers: { "content-type": "application/zip", "content-disposition": 'attachment; filename="manifest.tonk"' },
    body: manifestZip(rootHandle, url()),
  }
}

/** `/metrics`: bytes, milliseconds since the epoch, seconds. `memory.rss` is this process's own. */
async function metrics({ faults, counters, sockets }) {
  if (faults.metrics_delay_ms > 0) await wait(faults.metrics_delay_ms)
  if (faults.metrics_off) return text("there is nothing here\n", 404)
  if (faults.metrics_fail) return json({ error: "metrics are failing" }, 500)
  const { user, system } = process.cpuUsage()
  return json({
    timestamp: Date.now(),
    memory: { rss: process.memoryUsage.rss(), total: totalmem() },
    connections: sockets.open,
    uptime: process.uptime(),
    process: { pid: process.pid },
    version: VERSION,
    cpu_seconds: (user + system) / 1e6,
    messages: counters.messages,
  })
}
