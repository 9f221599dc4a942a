/** The admin endpoints: reading and changing faults, dropping connections, reading the counters. */

import { createServer } from "node:http"
import { json, pathOf, text } from "./endpoints.mjs"
import { FaultError } from "./faults.mjs"

const BODY_LIMIT_BYTES = 64 * 1024

/** The admin HTTP server; it must listen on the loopback interface only. */
export function createAdminServer({ faults, counters, sockets, pressure, repo }) {
  const shown = () => ({ ...faults.current(), stall_s: sockets.service.stall_ms / 1000 })
  const answers = {
    "GET /faults": () => shown(),
    "PUT /faults": body => {
      faults.change(body)
      return shown()
    },
    "POST /drop": body => {
      const dropped = sockets.drop(dropCount(body, sockets.open))
      return { dropped, open: sockets.open }
    },
    "GET /stats": () => ({
      ...counters.current({
        open: sockets.open,
        queued: sockets.service.waiting,
        served_ms: sockets.service.served_ms,
      }),
      documents: Object.keys(repo.handles).length,
      leaked_mb: pressure.leaked_mb,
      uptime_s: process.uptime(),
    }),
  }
  const paths = new Set(Object.keys(answers).map(key => key.split(" ")[1]))

  return createServer(async (request, response) => {
    const key = `${request.method} ${pathOf(request)}`
    let reply
    try {
      if (Object.hasOwn(answers, key)) {
        reply = json(answers[key](request.method === "GET" ? undefined : await readJson(request)))
      } else if (paths.has(pathOf(request))) reply = text("this method is not answered here\n", 405)
      else reply = text(`there is nothing here; there are: ${Object.keys(answers).join(", ")}\n`, 404)
    } catch (error) {
      if (!(error instanceof FaultError)) throw error
      reply = json({ error: error.message }, 400)
    }
    response.writeHead(reply.status, reply.headers)
    response.end(reply.body)
  })
}

/** How many connections a `POST /drop` asks for: `{"count": n}` or `{"share": 0..1}` of those open. */
function dropCount(body, open) {
  const keys = body !== null && typeof body === "object" ? Object.keys(body) : []
  const { count, share } = body ?? {}
  if (keys.length === 1 && Number.isInteger(count) && count >= 0) return count
  if (keys.length === 1 && typeof share === "number" && share >= 0 && share <= 1) return Math.round(share * open)
  throw new FaultError('say {"count": n} with a whole number from 0 on, or {"share": s} with 0 <= s <= 1')
}

async function readJson(request) {
  const parts = []
  let size = 0
  for await (const part of request) {
    size += part.length
    if (size > BODY_LIMIT_BYTES) throw new FaultError(`the body is longer than ${BODY_LIMIT_BYTES} bytes`)
    parts.push(part)
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString("utf8"))
  } catch (error) {
    throw new FaultError(`the body is no JSON: ${error.message}`)
  }
}
