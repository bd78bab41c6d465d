'use strict'
// What is not a job: a function whose result is kept.

const { keyOf } = require('./key')
const { packValue, unpackValue } = require('./results')
const { checkTries, FIRST_PAUSE_MS } = require('./retry')
const { settle } = require('./settle')
const { openWorker } = require('./worker')

/**
 * Give what `fn()` gives, and keep it: the next build that belongs to the same gets what was kept, and does not call
 * `fn`. The result must be JSON. A function whose text has changed is called again, what it uses is not looked at.
 * It is called again as well when the worker died in it, so it must be harmless twice.
 */
async function checkpoint (name, fn, { key, attempts = 1, backoff = FIRST_PAUSE_MS } = {}) {
  const what = `checkpoint ${JSON.stringify(name)}`
  if (typeof name !== 'string' || name === '') throw new Error('checkpoint: the first argument must be its name')
  if (typeof fn !== 'function') throw new Error(`${what}: the second argument must be a function`)
  checkTries({ attempts, backoff }, what)
  const worker = await openWorker()
  const id = keyOf(worker.about(key, { kind: 'value', name, definition: fn.toString() }))
  return settle(worker.store, id, {
    name: what,
    launch: () => ({}),
    start: async () => {
      try {
        return { state: 'succeeded', bytes: packValue(await fn()) }
      } catch (error) {
        return { state: 'failed', error }
      }
    },
    valueOf: unpackValue
  }, { attempts, backoff })
}

module.exports = { checkpoint }
