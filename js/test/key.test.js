'use strict'

const assert = require('assert')
const { test } = require('node:test')

const { definitionOf, hashed, keyOf, launchName, scopeOf } = require('../lib/key')

const ABOUT = { project: 'p', scope: { run: 'r', epoch: '1', step: 's' }, script: 'brigade.js', kind: 'job', name: 'n', definition: {} }

test('a key is 26 characters of a name, and the same whatever the order of what it is made of', () => {
  assert.match(keyOf(ABOUT), /^[0-9a-hjkmnp-tv-z]{26}$/)
  assert.strictEqual(hashed({ a: 1, b: [{ c: 2, d: 3 }] }), hashed({ b: [{ d: 3, c: 2 }], a: 1 }))
  assert.notStrictEqual(hashed([1, 2]), hashed([2, 1]))
})

test('each part of what a key is made of changes it', () => {
  const changed = Object.keys(ABOUT).map(part => keyOf({ ...ABOUT, [part]: 'other' }))
  assert.strictEqual(new Set([keyOf(ABOUT), ...changed]).size, 7)
})

test('a result belongs to what the script says, else to the step, else to commit and event, else to its build', () => {
  const build = { labels: { 'bridge.brigade.sh/run': 'r' }, commit: 'c', event: 'push', build: 'b' }
  assert.deepStrictEqual(scopeOf(build, 7), { key: '7' })
  assert.deepStrictEqual(scopeOf(build), { run: 'r', epoch: '1', step: '' })
  assert.deepStrictEqual(scopeOf({ ...build, labels: {} }), { commit: 'c', event: 'push' })
  assert.deepStrictEqual(scopeOf({ ...build, labels: undefined, commit: '' }), { build: 'b' })
})

test('a definition has what a job does, not what it may use', () => {
  const job = { image: 'i', tasks: ['t'], args: [], env: { A: '1', TOKEN: 'x' }, host: { nodeSelector: new Map([['k', 'v']]) } }
  const definition = definitionOf(job, ['TOKEN'])
  assert.deepStrictEqual(definition.env, { A: '1' })
  assert.deepStrictEqual(definition.host.nodeSelector, { k: 'v' })
  assert.deepStrictEqual(definitionOf({ ...job, timeout: 5, resourceLimits: { cpu: '1' } }, ['TOKEN']), definition)
})

test('launches of one name, and of two long names that begin alike, have names that Brigade takes and that differ', () => {
  const long = ['1', '2'].map(end => `${'a'.repeat(22)}-${'b'.repeat(12)}${end}`)
  const names = []
  for (const name of ['test', ...long, `${'a'.repeat(20)}-x-${'b'.repeat(13)}`]) {
    for (const number of [1, 2, 3, 10, 999]) names.push(launchName(name, number))
  }
  assert.strictEqual(new Set(names).size, 20)
  for (const name of names) assert.match(name, /^[a-z0-9](?=.{0,35}$)([-a-z0-9]*[a-z0-9])?$/)
  assert.deepStrictEqual(names.slice(0, 2), ['test', 'test-try2'])
})
