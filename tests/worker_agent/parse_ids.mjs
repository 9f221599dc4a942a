// Says for each argument what automerge-repo's own parser makes of it: its 16 bytes in hex, or null.
import { interpretAsDocumentId, parseAutomergeUrl } from "@automerge/automerge-repo/slim"

const hex = bytes => Buffer.from(bytes).toString("hex")
const parse = id => {
  try {
    const { documentId, binaryDocumentId } = parseAutomergeUrl(`automerge:${id}`)
    return interpretAsDocumentId(documentId) === id ? hex(binaryDocumentId) : null
  } catch {
    return null
  }
}
console.log(JSON.stringify(process.argv.slice(2).map(parse)))
