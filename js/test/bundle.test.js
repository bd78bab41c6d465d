'use strict'

const assert = require('assert')
const fs = require('fs')
const path = require('path')
const { test } = require('node:test')

const { bundle } = require('../bundle')
const { NODE, folder, machine, run } = require('./harness')

const EXAMPLE = path.join(__dirname, '..', '..', 'examples', 'durable')

test('the example\'s file is the package as it is now', () => {
  const kept = fs.readFileSync(path.join(EXAMPLE, 'durable.js'), 'utf8')
  assert.strictEqual(kept, bundle(), 'make it anew: node js/bundle.js > examples/durable/durable.js')
})

test('the one file exports what the package exports, and works alone', async t => {
  const dir = folder(t)
  fs.writeFileSync(path.join(dir, 'durable.js'), bundle())
  const ended = await run(dir, `const one = require(${JSON.stringify(path.join(dir, 'durable.js'))})
    const kept = await one.checkpoint('a', () => 7)
    return [Object.keys(one).sort(), kept]`)
  assert.deepStrictEqual(ended.result, [['DurableJob', 'checkpoint', 'emit', 'retry'], 7], ended.log)
})

test('the example runs on the one-machine worker, and its next build skips what was finished', async t => {
  process.env.BRIDGE_WORKER_NODE = NODE
  const worker = require('../../tests/worker/harness')
  const dir = folder(t)
  const runExample = id => {
    const made = worker.build(t, '', {
      id,
      script: path.join(EXAMPLE, 'brigade.js'),
      source: EXAMPLE,
      labels: JSON.parse(machine(dir).BRIGADE_BUILD_LABELS),
      checkpoints: path.join(dir, 'checkpoints'),
      event: { buildID: id }
    })
    return worker.start(made).ended
  }
  const first = await runExample('01build')
  assert.strictEqual(first.code, 0, first.log)
  const second = await runExample('02build')
  assert.strictEqual(second.code, 0, second.log)
  for (const name of ['build', 'test', 'package', 'checkpoint "release"']) {
    assert.ok(second.log.includes(`[durable] ${name}: done already in build 01build, skipped`), second.log)
  }
  assert.ok(!/Creating pod/.test(second.log))
})
