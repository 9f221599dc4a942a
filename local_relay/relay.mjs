#!/usr/bin/env node
/**
 * A local relay: a real automerge-repo relay with the Tonk relay's endpoints and switchable faults.
 *
 *   node local_relay/relay.mjs [--host 127.0.0.1] [--port 8081] [--admin-port 0] [--seed 1] [faults]
 *
 * When it is ready it prints one line of JSON on stdout and nothing more, ever:
 *   {"ready": true, "url": "ws://…/", "http_url": "http://…", "admin_url": "http://127.0.0.1:…", "pid": n}
 * Logs go to stderr. SIGTERM and SIGINT end it with exit code 0; a port in use ends it with 1, a bad
 * flag with 2, die_at_mb with SIGKILL.
 *
 * Public endpoints (any origin may read them):
 *   GET /                 health text; a WebSocket upgrade here speaks the automerge-repo protocol "1"
 *   GET /metrics          timestamp (ms), memory.rss of this process and memory.total (bytes),
 *                         connections open now, uptime (s), process.pid, version, cpu_seconds, messages
 *   GET /.manifest.tonk   zip: manifest.json with rootId, and the root document's bytes
 *
 * Admin endpoints (127.0.0.1 only, on a port of their own):
 *   GET /faults           all faults as they are now; stall_s is what is left of the present stall
 *   PUT /faults           {"delay_in_ms": 200, …}: changes those named, all or (400) none
 *   POST /drop            {"count": n} or {"share": 0..1}: drops so many now; {"dropped": n, "open": n}
 *   GET /stats            sockets and messages counted since the start, per kind, and the time that
 *                         serving them took (messages.served_ms)
 *
 * Faults (flags have - for _; off by default):
 *   delay_in_ms, delay_out_ms      ms added to sync and request messages; order on a socket is kept
 *   service_ms, service_noise      ms, 0..1: one server for all incoming messages, handshakes too;
 *                                  message k begins at max(its arrival, the end of k-1)
 *   batch_ms                       ms between broadcasts of a document (default 100, as the library's)
 *   stall_s                        s from now on in which no incoming message is handled (HTTP still is)
 *   max_connections                refuse more than so many with HTTP 503
 *   drop_percent_per_minute        % of the open connections dropped in a minute, evenly in time:
 *                                  a connection that stays open for a minute adds so much of a drop
 *   leak_mb_per_minute, die_at_mb  MB retained in a minute; SIGKILL itself at so many MB leaked
 *   metrics_fail, metrics_off, metrics_delay_ms      /metrics answers 500, 404, or so many ms later
 *   manifest_delay_ms                                /.manifest.tonk answers so many ms later
 *   accept_silent, garbage, close_at_once, protocol_version
 *                                  how a socket is treated that is accepted while they are on
 *   no_documents                   doc-unavailable for every request, sync messages are ignored
 *   announce                       offer every document to every peer (as the Tonk relay's library does)
 */

import { once } from "node:events"
import { createAdminServer } from "./admin.mjs"
import { Counters } from "./counters.mjs"
import { createPublicServer } from "./endpoints.mjs"
import { Faults } from "./faults.mjs"
import { UsageError, readOptions, usage } from "./options.mjs"
import { Pressure } from "./pressure.mjs"
import { LibraryError, createRepo, createRootDocument } from "./repo.mjs"
import { Sockets } from "./sockets.mjs"

const BACKLOG = 4096 // a thousand clients may connect in the same instant
const ADMIN_HOST = "127.0.0.1"

const log = message => process.stderr.write(`relay: ${message}\n`)

/** Something at the start that the user can put right: its message is all that is printed. */
class StartError extends Error {}

async function listen(server, port, host, flag) {
  server.listen({ port, host, backlog: BACKLOG })
  try {
    await once(server, "listening")
  } catch (error) {
    const what = error.code === "EADDRINUSE" ? "the port is already in use" : error.message
    throw new StartError(`cannot listen on ${host} port ${port}: ${what}; choose another with ${flag} (0 takes any free one)`)
  }
  server.on("error", error => log(`server error: ${error.message}`))
  return server.address().port
}

/** The address by which a client on this machine reaches a server that listens on `host`. */
function reachable(host) {
  if (host === "0.0.0.0" || host === "::") return ADMIN_HOST
  return host.includes(":") ? `[${host}]` : host
}

async function main() {
  const options = readOptions(process.argv.slice(2))
  if (options.help) return process.stdout.write(`${usage()}\n`)

  for (const signal of ["SIGTERM", "SIGINT"]) {
    process.once(signal, () => {
      log(`${signal}: ends`)
      process.exit(0)
    })
  }
  // The library reports with console.log, and stdout carries the ready line alone.
  console.log = console.error
  process.stderr.on("error", () => {}) // whoever reads the log may go away before the relay does
  process.removeAllListeners("warning")
  process.on("warning", warning => {
    // The library's throttle sets timers into the past when it has nothing to wait for.
    if (warning.name !== "TimeoutNegativeWarning") log(warning.message)
  })

  const { stall_s = 0, ...standing } = options.faults
  const faults = new Faults(standing)
  const counters = new Counters()
  let repo
  const sockets = new Sockets({ faults, counters, seed: options.seed, peerId: () => repo.peerId, log })
  repo = createRepo({ adapterSide: sockets.adapterSide, faults })
  const pressure = new Pressure({ faults, sockets, log })
  faults.onChange(names => {
    if (names.has("stall_s")) sockets.service.stall(faults.stall_s * 1000)
  })
  process.on("unhandledRejection", error => {
    // The library waits for documents with time limits in promises that nobody awaits.
    counters.errors += 1
    log(`unhandled: ${error?.message ?? error}`)
  })

  let url = ""
  const publicServer = createPublicServer({
    faults,
    counters,
    sockets,
    rootHandle: createRootDocument(repo),
    url: () => url,
  })
  const adminServer = createAdminServer({ faults, counters, sockets, pressure, repo })
  const port = await listen(publicServer, options.port, options.host, "--port")
  const adminPort = await listen(adminServer, options.adminPort, ADMIN_HOST, "--admin-port")

  const address = `${reachable(options.host)}:${port}`
  url = `ws://${address}/`
  if (stall_s > 0) setTimeout(() => faults.change({ stall_s }), options.stall_at_s * 1000)
  const ready = { ready: true, url, http_url: `http://${address}`, admin_url: `http://${ADMIN_HOST}:${adminPort}`, pid: process.pid }
  process.stdout.write(`${JSON.stringify(ready)}\n`)
}

try {
  await main()
} catch (error) {
  if (error instanceof UsageError) {
    log(`${error.message}; --help lists the flags`)
    process.exitCode = 2
  } else if (error instanceof StartError || error instanceof LibraryError) {
    log(error.message)
    process.exit(1)
  } else throw error
}
