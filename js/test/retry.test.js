'use strict'

const assert = require('assert')
const { test } = require('node:test')

const { retry, pauseAfter } = require('../lib/retry')

test('what fails twice and then succeeds gives its value on the third call', async () => {
  const calls = []
  const value = await retry(async attempt => {
    calls.push(attempt)
    if (attempt < 3) throw new Error(`no ${attempt}`)
    return 'yes'
  }, { attempts: 3, backoff: 0 })
  assert.deepStrictEqual([value, calls], ['yes', [1, 2, 3]])
})

test('the last error is the one that is thrown', async () => {
  await assert.rejects(retry(async n => { throw new Error(`no ${n}`) }, { attempts: 2, backoff: 0 }), /no 2/)
})

test('an error that retryIf refuses ends it at once', async () => {
  let calls = 0
  const options = { backoff: 0, retryIf: error => error.message !== 'final' }
  await assert.rejects(retry(async () => { calls += 1; throw new Error('final') }, options), /final/)
  assert.strictEqual(calls, 1)
})

test('a function that throws at once is tried again as well', async () => {
  await assert.rejects(retry(() => { throw new Error('at once') }, { attempts: 2, backoff: 0 }), /at once/)
})

test('pauses double up to a minute and are never longer than asked', () => {
  for (const [failures, whole] of [[1, 1000], [2, 2000], [3, 4000], [20, 60000]]) {
    const ms = pauseAfter(failures, 1000)
    assert.ok(ms <= whole && ms >= whole * 0.75, `${failures}: ${ms}`)
  }
  assert.ok(pauseAfter(5, 90000) <= 90000)
})

test('options that make no sense are refused', async () => {
  for (const options of [{ attempts: 0 }, { attempts: 1.5 }, { backoff: -1 }, { backoff: '1s' }]) {
    await assert.rejects(retry(async () => 1, options), /must be/)
  }
  await assert.rejects(retry('no function'), /function/)
})
