'use strict'
// What a checkpoint keeps, as the bytes that a store holds.

const zlib = require('zlib')

// A Secret takes 1 MiB in all; the record needs a little of it.
const LARGEST_BYTES = 700 * 1024
const LONGEST_LOG = 4 * 1024 * 1024
const CUT = '... the beginning of this log was dropped\n'

/** The end of `log`, as much of it as a store takes. */
function packLog (log) {
  for (let text = log, longest = LONGEST_LOG; ; longest /= 2) {
    if (text.length > longest) text = CUT + log.slice(-longest)
    const bytes = zlib.gzipSync(text)
    if (bytes.length <= LARGEST_BYTES) return bytes
  }
}

/** `value` as JSON. Throws when it has none, or is too large to be kept. */
function packValue (value) {
  // JSON has no word for undefined, which is what a function without a return gives.
  const bytes = zlib.gzipSync(JSON.stringify({ value }))
  if (bytes.length <= LARGEST_BYTES) return bytes
  throw new Error(`its result has ${bytes.length} bytes, compressed; at most ${LARGEST_BYTES} can be kept`)
}

function unpackLog (bytes) {
  return bytes === null ? '' : zlib.gunzipSync(bytes).toString()
}

function unpackValue (bytes) {
  return JSON.parse(zlib.gunzipSync(bytes).toString()).value
}

module.exports = { LARGEST_BYTES, packLog, unpackLog, packValue, unpackValue }
