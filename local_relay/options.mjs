/** The command line: `relay.mjs [--host H] [--port P] [--admin-port P] [--seed N] [fault flags]`. */

import { parseArgs } from "node:util"
import { FAULTS, FaultError, checkFault } from "./faults.mjs"

/** A flag that does not exist or a value that it cannot take. Its message is for the user. */
export class UsageError extends Error {}

const flagOf = name => name.replaceAll("_", "-")

const PLAIN = {
  host: { type: "string", default: "127.0.0.1" },
  port: { type: "string", default: "8081" },
  "admin-port": { type: "string", default: "0" },
  seed: { type: "string", default: "1" },
  "stall-at-s": { type: "string" },
  help: { type: "boolean", short: "h", default: false },
}

/** What `--help` prints. */
export function usage() {
  const faults = Object.entries(FAULTS).map(([name, fault]) => {
    const value = fault.kind === "flag" ? "" : fault.kind === "text" ? " TEXT" : " N"
    const unit = fault.unit ? ` [${fault.unit}]` : ""
    return `  --${(flagOf(name) + value).padEnd(30)}${fault.help}${unit}`
  })
  return [
    "usage: node local_relay/relay.mjs [options] [faults]",
    "",
    "A local automerge-repo relay with the Tonk relay's endpoints and switchable faults.",
    "",
    "options:",
    `  --${"host H".padEnd(30)}address to listen on (127.0.0.1)`,
    `  --${"port P".padEnd(30)}port to listen on (8081); 0 takes any free one`,
    `  --${"admin-port P".padEnd(30)}port of the admin endpoints, always on 127.0.0.1 (0: any free one)`,
    `  --${"seed N".padEnd(30)}seed of service noise, of drops and of garbage (1)`,
    `  --${"stall-at-s N".padEnd(30)}when the stall of --stall-s begins, counted from the start (0) [s]`,
    `  --${"help".padEnd(30)}print this`,
    "",
    "faults (PUT /faults on the admin port changes them while the relay runs, with _ for -):",
    ...faults,
  ].join("\n")
}

/** Reads the command line's words. Gives `{help}` or `{host, port, adminPort, seed, stall_at_s, faults}`. */
export function readOptions(words) {
  const faultFlags = Object.entries(FAULTS).map(([name, { kind }]) => [
    flagOf(name),
    { type: kind === "flag" ? "boolean" : "string" },
  ])
  let values
  try {
    ;({ values } = parseArgs({ args: words, options: { ...PLAIN, ...Object.fromEntries(faultFlags) }, strict: true }))
  } catch (error) {
    throw new UsageError(error.message)
  }
  if (values.help) return { help: true }

  const faults = {}
  for (const [name, { kind }] of Object.entries(FAULTS)) {
    const given = values[flagOf(name)]
    if (given === undefined) continue
    faults[name] = kind === "number" || kind === "whole" ? numberOf(`--${flagOf(name)}`, given) : given
    try {
      checkFault(name, faults[name])
    } catch (error) {
      if (error instanceof FaultError) throw new UsageError(`--${flagOf(name)}: ${error.message}`)
      throw error
    }
  }
  if (values["stall-at-s"] !== undefined && faults.stall_s === undefined) {
    throw new UsageError("--stall-at-s says when a stall begins; say with --stall-s how long it lasts")
  }
  const stall_at_s = numberOf("--stall-at-s", values["stall-at-s"] ?? "0")
  if (stall_at_s < 0 || stall_at_s > 86_400) throw new UsageError("--stall-at-s must lie between 0 and 86400 (s)")
  return {
    help: false,
    host: values.host,
    port: portOf("--port", values.port),
    adminPort: portOf("--admin-port", values["admin-port"]),
    seed: wholeOf("--seed", values.seed, 2 ** 32 - 1),
    stall_at_s,
    faults,
  }
}

function numberOf(flag, text) {
  const value = text.trim() === "" ? Number.NaN : Number(text)
  if (!Number.isFinite(value)) throw new UsageError(`${flag} must be a number, not "${text}"`)
  return value
}

function wholeOf(flag, text, highest) {
  const value = numberOf(flag, text)
  if (!Number.isInteger(value) || value < 0 || value > highest) {
    throw new UsageError(`${flag} must be a whole number from 0 to ${highest}, not "${text}"`)
  }
  return value
}

const portOf = (flag, text) => wholeOf(flag, text, 65_535)
