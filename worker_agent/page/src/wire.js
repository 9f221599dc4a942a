// The automerge-repo network protocol, version "1": CBOR messages on a WebSocket.
// https://github.com/automerge/automerge-repo (packages/automerge-repo-network-websocket)

import { Encoder } from "cbor-x/index-no-eval";

export const PROTOCOL_VERSION = "1";

const codec = new Encoder({ tagUint8Array: false, useRecords: false });

export const join = (senderId) =>
  codec.encode({
    type: "join",
    senderId,
    peerMetadata: { isEphemeral: true },
    supportedProtocolVersions: [PROTOCOL_VERSION],
  });

export const sync = (type, senderId, targetId, documentId, data) =>
  codec.encode({ type, senderId, targetId, documentId, data });

export const unavailable = (senderId, targetId, documentId) =>
  codec.encode({ type: "doc-unavailable", senderId, targetId, documentId });

// Returns the message, or throws an Error that says what is wrong with it.
export function decode(data) {
  if (!(data instanceof ArrayBuffer) || data.byteLength === 0) {
    throw new Error(typeof data === "string" ? "a text frame came" : "an empty frame came");
  }
  let message;
  try {
    message = codec.decode(new Uint8Array(data));
  } catch (error) {
    throw new Error(`not CBOR: ${error.message}`);
  }
  if (typeof message !== "object" || message === null || typeof message.type !== "string") {
    throw new Error("a CBOR value came that is no message");
  }
  return message;
}
