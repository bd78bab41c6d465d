'use strict'
// Trying again what returns a promise.

const LONGEST_PAUSE_MS = 60 * 1000
const FIRST_PAUSE_MS = 1000

/**
 * How long to wait after `failures` failures: `first`, doubled with each one, a minute at most (or `first`, if that
 * is longer), and up to a quarter less, so that those who failed together do not come back together.
 */
function pauseAfter (failures, first = FIRST_PAUSE_MS) {
  const longest = Math.max(first, LONGEST_PAUSE_MS)
  const whole = Math.min(first * Math.pow(2, failures - 1), longest)
  return whole * (1 - Math.random() / 4)
}

function pause (ms) {
  return new Promise(resolve => setTimeout(resolve, ms))
}

/** Throws unless `attempts` is a whole number from 1 on and `backoff` a number of milliseconds from 0 on. */
function checkTries ({ attempts, backoff }, of) {
  if (!Number.isInteger(attempts) || attempts < 1) {
    throw new Error(`${of}: attempts must be a whole number, at least 1`)
  }
  if (typeof backoff !== 'number' || !(backoff >= 0)) {
    throw new Error(`${of}: backoff must be a number of milliseconds`)
  }
}

/**
 * Call `fn(attempt)` until it succeeds, `attempts` times at most, and give what it gave; else the last error.
 * `retryIf(error)` false ends it at once. The pauses begin with `backoff` milliseconds and double.
 */
async function retry (fn, { attempts = 3, backoff = FIRST_PAUSE_MS, retryIf = () => true } = {}) {
  if (typeof fn !== 'function') throw new Error('retry: the first argument must be a function')
  checkTries({ attempts, backoff }, 'retry')
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await fn(attempt)
    } catch (error) {
      if (attempt >= attempts || !retryIf(error)) throw error
      await pause(pauseAfter(attempt, backoff))
    }
  }
}

module.exports = { FIRST_PAUSE_MS, retry, pause, pauseAfter, checkTries }
