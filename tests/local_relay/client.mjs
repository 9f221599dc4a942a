/**
 * Clients for the tests of the relay; each prints one line of JSON.
 *
 *   latency URL EDITS GAP_MS      two automerge-repo clients on one document: delivery times in ms
 *   find URL DOCUMENT_ID          an automerge-repo client's view of a document
 *   requests URL SOCKETS EACH [ADMIN_URL STALL_S]
 *                                 requests for unknown documents, sent at once after the handshakes
 *                                 (and after telling the relay to stall): when each was answered
 *   talk URL WANTED WAIT_MS [DOC_ID]
 *                                 a handshake and a request: all that came back until WANTED messages
 *                                 were there or the relay had closed, and for WAIT_MS more
 */

import { setTimeout as wait } from "node:timers/promises"
import { generateSyncMessage, init, initSyncState } from "@automerge/automerge"
import { Repo, cbor, generateAutomergeUrl, parseAutomergeUrl } from "@automerge/automerge-repo"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import WebSocket from "ws"

const client = url => new Repo({ network: [new WebSocketClientAdapter(url)] })
const unknownDocument = () => parseAutomergeUrl(generateAutomergeUrl()).documentId
const [, firstMessage] = generateSyncMessage(init(), initSyncState())

async function latency(url, edits, gap_ms) {
  const [writer, observer] = [client(url), client(url)]
  const written = writer.create({ number: 0 })
  // The observer may ask before the relay has heard of the document.
  let seen
  while (seen === undefined) seen = await observer.find(written.url).catch(() => wait(20))

  const sent_ms = []
  const delivery_ms = []
  const { promise: allSeen, resolve } = Promise.withResolvers()
  seen.on("change", ({ doc }) => {
    while (delivery_ms.length < doc.number) delivery_ms.push(performance.now() - sent_ms[delivery_ms.length])
    if (doc.number === edits) resolve()
  })
  await wait(300) // the first exchange is over: every edit then meets an idle document
  for (let number = 1; number <= edits; number += 1) {
    sent_ms.push(performance.now())
    written.change(document => {
      document.number = number
    })
    await wait(gap_ms)
  }
  await allSeen
  return { delivery_ms, writer: written.doc(), observer: seen.doc() }
}

async function find(url, documentId) {
  return (await client(url).find(`automerge:${documentId}`)).doc()
}

/** A socket after its handshake, spoken by hand. */
function join(url) {
  const { promise, resolve, reject } = Promise.withResolvers()
  const peer = `by-hand-${Math.random().toString(36).slice(2)}`
  const socket = new WebSocket(url)
  socket.on("error", reject)
  socket.on("open", () => {
    const supportedProtocolVersions = ["1"]
    socket.send(cbor.encode({ type: "join", senderId: peer, peerMetadata: { isEphemeral: true }, supportedProtocolVersions }))
  })
  socket.once("message", bytes => {
    const server = cbor.decode(bytes).senderId
    const request = documentId =>
      socket.send(cbor.encode({ type: "request", senderId: peer, targetId: server, documentId, data: firstMessage }))
    resolve({ socket, request })
  })
  return promise
}

async function requests(url, sockets, each, adminUrl, stall_s) {
  const joined = await Promise.all(Array.from({ length: sockets }, () => join(url)))
  const began = performance.now()
  if (stall_s) await fetch(`${adminUrl}/faults`, { method: "PUT", body: JSON.stringify({ stall_s }) })
  const answered = joined.map(async ({ socket, request }) => {
    const asked = Array.from({ length: each }, unknownDocument)
    const answers = []
    const { promise, resolve } = Promise.withResolvers()
    socket.on("message", bytes => {
      const { type, documentId } = cbor.decode(bytes)
      if (type !== "doc-unavailable") return
      answers.push({ index: asked.indexOf(documentId), at_ms: performance.now() - began })
      if (answers.length === each) resolve(answers)
    })
    asked.forEach(request)
    return promise
  })
  return Promise.all(answered)
}

async function talk(url, wanted, wait_ms, documentId = unknownDocument()) {
  const heard = []
  const { promise: enough, resolve } = Promise.withResolvers()
  const socket = new WebSocket(url)
  let closed = null
  socket.on("open", () => {
    const supportedProtocolVersions = ["1"]
    socket.send(cbor.encode({ type: "join", senderId: "talker", peerMetadata: { isEphemeral: true }, supportedProtocolVersions }))
    socket.send(cbor.encode({ type: "request", senderId: "talker", targetId: "", documentId, data: firstMessage }))
  })
  socket.on("message", bytes => {
    let message
    try {
      message = cbor.decode(bytes)
    } catch {
      message = undefined
    }
    const { type, selectedProtocolVersion, documentId: document } = message ?? {}
    if (heard.length + 1 >= wanted) resolve()
    heard.push({ type, selectedProtocolVersion, documentId: document, bytes: bytes.length })
  })
  socket.on("close", code => {
    closed = code
    resolve()
  })
  if (wanted > 0) await Promise.race([enough, wait(20_000)])
  await wait(wait_ms)
  return { documentId, heard, closed }
}

const [, , command, ...words] = process.argv
const parameters = words.map(word => (/^\d+$/.test(word) ? Number(word) : word))
const result = await { latency, find, requests, talk }[command](...parameters)
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
