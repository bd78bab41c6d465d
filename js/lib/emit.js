'use strict'
// The next event of the project, once.

const { keyOf } = require('./key')
const { openWorker } = require('./worker')

// Brigade's worker fires these itself.
const RESERVED = ['error', 'after', 'ping']

// What this build has emitted, with its payload, by id.
const emitted = new Map()

/**
 * Have Brigade build `event` of this project, with this build's revision, and give {id, duplicate} once that is
 * stored; its end is not waited for. The id follows from what this build belongs to, the event and `name`, so
 * another build of the same emits nothing twice, whatever the payload. Events of one type from one script need names.
 */
async function emit (event, payload = '', { key, name = '' } = {}) {
  if (typeof event !== 'string' || event === '') throw new Error('emit: the first argument must be the event\'s type')
  if (RESERVED.includes(event)) throw new Error(`emit: ${event} is an event of Brigade's worker itself`)
  const text = typeof payload === 'string' ? payload : JSON.stringify(payload)
  if (text === undefined) throw new Error(`emit ${event}: the payload is no JSON`)
  const worker = await openWorker()
  const id = keyOf(worker.about(key, { kind: 'event', name: event, definition: name }))
  if (emitted.has(id) && emitted.get(id) !== text) {
    throw new Error(`emit ${event}: it was emitted with another payload; give each its own name: {name: …}`)
  }
  emitted.set(id, text)
  const duplicate = !await worker.store.startBuild(id, event, text)
  console.log(`[durable] event ${event}: build ${id}${duplicate ? ' was started before' : ''}`)
  return { id, duplicate }
}

module.exports = { emit }
