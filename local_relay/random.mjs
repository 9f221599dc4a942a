/**
 * Seeded random numbers, so that a run with a fault can be repeated exactly.
 *
 * Each use has a stream of its own, named: more draws in one (service times) must not change what
 * another gives (which connections are dropped).
 */

/** A generator of numbers in [0, 1): mulberry32, started from `seed` and the stream's name. */
export function randomStream(seed, name) {
  let state = seed >>> 0
  for (const character of name) state = Math.imul(state ^ character.codePointAt(0), 0x01000193) >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** `count` random bytes from `random`. */
export function randomBytes(random, count) {
  return Uint8Array.from({ length: count }, () => Math.floor(random() * 256))
}

/** `count` different elements of `items` chosen by `random` (all of them when there are fewer). */
export function choose(random, items, count) {
  const pool = [...items]
  const wanted = Math.min(count, pool.length)
  for (let taken = 0; taken < wanted; taken += 1) {
    const other = taken + Math.floor(random() * (pool.length - taken))
    ;[pool[taken], pool[other]] = [pool[other], pool[taken]]
  }
  return pool.slice(0, wanted)
}
