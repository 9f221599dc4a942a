// node benchmarks/echo_server.mjs BYTES EVERY_MS: prints its port, then sends every socket a
// message at that interval and drops what comes back.
import { WebSocketServer } from 'ws'

const [bytes, everyMs] = process.argv.slice(2).map(Number)
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false })
const message = Buffer.alloc(bytes, 1)
server.on('listening', () => console.log(server.address().port))
server.on('connection', (socket) => socket.on('message', () => {}))
setInterval(() => {
  for (const socket of server.clients) socket.send(message)
}, everyMs)
