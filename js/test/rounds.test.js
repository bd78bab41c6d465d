'use strict'
// Workers that ask for the same at the same moment.

const assert = require('assert')
const fs = require('fs')
const path = require('path')
const { test } = require('node:test')

const { folder, machine, start, until } = require('./harness')

const ROUNDS = 50

test('two workers that begin from a barrier call a function once, in each of 50 rounds', async t => {
  const dir = folder(t)
  const body = `for (let round = 0; round < ${ROUNDS}; round += 1) {
      fs.writeFileSync(NOTES + '.' + round + '.' + process.env.BRIGADE_BUILD_ID, '')
      // Not a pause: both go on within the same millisecond or so.
      while (['01build', '02build'].some(id => !fs.existsSync(NOTES + '.' + round + '.' + id))) await new Promise(setImmediate)
      await checkpoint('round ' + round, () => { note(String(round)) })
    }`
  const workers = ['01build', '02build'].map(id => start(dir, body, machine(dir, { BRIGADE_BUILD_ID: id })))
  const ended = await Promise.all(workers.map(worker => worker.ended))
  assert.deepStrictEqual(ended.map(one => one.code), [0, 0], ended.map(one => one.log).join('\n'))
  assert.deepStrictEqual(ended[0].notes.map(Number).sort((a, b) => a - b), Array.from({ length: ROUNDS }, (_, at) => at))
})

test('of four workers that see a killed one\'s work, one takes it over', async t => {
  const dir = folder(t)
  const body = `await checkpoint('one', async () => {
    note('called'); await until(() => fs.existsSync(NOTES + '.go')) })`
  const first = start(dir, body)
  await until(() => fs.existsSync(path.join(dir, 'notes')), 'the call')
  first.kill('SIGKILL')
  await first.ended
  const others = ['02', '03', '04', '05'].map(id => start(dir, body, machine(dir, { BRIGADE_BUILD_ID: `${id}build` })))
  let waiting = 0
  for (const other of others) other.stdout.on('data', piece => { waiting += String(piece).split('waiting for it').length - 1 })
  await until(() => waiting === 3, 'three to wait')
  fs.writeFileSync(path.join(dir, 'notes.go'), '')
  for (const ended of await Promise.all(others.map(one => one.ended))) assert.strictEqual(ended.code, 0, ended.log)
  assert.strictEqual(fs.readFileSync(path.join(dir, 'notes'), 'utf8'), 'called\n'.repeat(2))
})
