'use strict'

const assert = require('assert')
const { test } = require('node:test')

const { folder, machine, start, run, notes, until } = require('./harness')

const ONCE = "return await checkpoint('total', () => { note('called'); return { total: 42 } })"

test('a result is kept and the function is not called again by the next build', async t => {
  const dir = folder(t)
  const first = await run(dir, ONCE)
  const second = await run(dir, ONCE, machine(dir, { BRIGADE_BUILD_ID: '02build' }))
  assert.deepStrictEqual([first.result, second.result], [{ total: 42 }, { total: 42 }])
  assert.deepStrictEqual(second.notes, ['called'])
  assert.match(second.log, /checkpoint "total": done already in build 01build, skipped/)
})

test('a result is what JSON makes of it, in the build that made it too', async t => {
  const dir = folder(t)
  const body = `return [typeof (await checkpoint('when', () => new Date(0))), await checkpoint('nothing', () => {}) === undefined]`
  assert.deepStrictEqual((await run(dir, body)).result, ['string', true])
  assert.deepStrictEqual((await run(dir, body)).result, ['string', true])
})

test('a rerun, another step, another project, another commit and another function call it again', async t => {
  const dir = folder(t)
  const labelled = labels => machine(dir, { BRIGADE_BUILD_LABELS: JSON.stringify(labels) })
  const run1 = { 'bridge.brigade.sh/run': 'widgets-1', 'bridge.brigade.sh/epoch': '1', 'bridge.brigade.sh/step': 'test' }
  await run(dir, ONCE)
  await run(dir, ONCE, labelled({ ...run1, 'bridge.brigade.sh/epoch': '2' }))
  await run(dir, ONCE, labelled({ ...run1, 'bridge.brigade.sh/step': 'deploy' }))
  await run(dir, ONCE, labelled({ 'bridge.brigade.sh/run': 'none' }))
  await run(dir, ONCE, machine(dir, { BRIGADE_BUILD_LABELS: '{}', BRIGADE_COMMIT_ID: 'other' }))
  await run(dir, ONCE, machine(dir, { BRIGADE_PROJECT_ID: 'brigade-0000' }))
  await run(dir, ONCE.replace('42', '43'))
  assert.strictEqual(notes(dir).length, 7)
})

test('without bridge the commit and the event are what results belong to', async t => {
  const dir = folder(t)
  const plain = build => machine(dir, { BRIGADE_BUILD_LABELS: '{}', BRIGADE_BUILD_ID: build })
  await run(dir, ONCE, plain('01build'))
  assert.deepStrictEqual((await run(dir, ONCE, plain('02build'))).notes, ['called'])
})

test('a build with neither run nor commit says that it is alone', async t => {
  const dir = folder(t)
  const alone = build => machine(dir, { BRIGADE_BUILD_LABELS: '{}', BRIGADE_COMMIT_ID: '', BRIGADE_BUILD_ID: build })
  await run(dir, ONCE, alone('01build'))
  const second = await run(dir, ONCE, alone('02build'))
  assert.strictEqual(second.notes.length, 2)
  assert.match(second.log, /neither a run nor a commit/)
})

test('a key of the script takes the place of run and commit', async t => {
  const dir = folder(t)
  const keyed = ONCE.replace(/\)$/, ", { key: 'release-7' })")
  await run(dir, keyed)
  const other = machine(dir, { BRIGADE_BUILD_LABELS: '{}', BRIGADE_COMMIT_ID: 'other' })
  assert.deepStrictEqual((await run(dir, keyed, other)).notes, ['called'])
})

test('a failure is not kept; attempts call again at once', async t => {
  const dir = folder(t)
  const flaky = attempts => `let calls = 0
    return await checkpoint('flaky', () => { note('called'); if (++calls < 3) throw new Error('not yet') },
      { attempts: ${attempts}, backoff: 1 })`
  const failed = await run(dir, flaky(2))
  assert.strictEqual(failed.code, 1)
  assert.match(failed.log, /Error: not yet/)
  const passed = await run(dir, flaky(3), machine(dir, { BRIGADE_BUILD_ID: '02build' }))
  assert.strictEqual(passed.code, 0, passed.log)
  assert.strictEqual(passed.notes.length, 2 + 3)
})

test('a worker killed in it is noticed, and the next build calls it again', async t => {
  const dir = folder(t)
  const first = start(dir, "await checkpoint('slow', async () => { note('first'); await until(() => false) })")
  await until(() => notes(dir).length === 1, 'the first call')
  // The same text, so the same key; what it does depends on the build.
  first.kill('SIGKILL')
  await first.ended
  const again = "await checkpoint('slow', async () => { note('first'); await until(() => false) })"
  const second = start(dir, again, machine(dir, { BRIGADE_BUILD_ID: '02build' }))
  await until(() => notes(dir).length === 2, 'the second call')
  second.kill('SIGKILL')
  assert.match((await second.ended).log, /of build 01build is lost/)
})

test('a build that finds it begun by a worker that lives waits for its result', async t => {
  const dir = folder(t)
  const body = `return await checkpoint('shared', async () => {
    note('called'); await until(() => fs.existsSync(NOTES + '.go')); return process.env.BRIGADE_BUILD_ID })`
  const first = start(dir, body)
  await until(() => notes(dir).length === 1, 'the call')
  const second = start(dir, body, machine(dir, { BRIGADE_BUILD_ID: '02build' }))
  let log = ''
  second.stdout.on('data', piece => { log += piece })
  await until(() => /waiting for it, begun in build 01build/.test(log), 'the second to wait')
  require('fs').writeFileSync(`${dir}/notes.go`, '')
  assert.deepStrictEqual([(await first.ended).result, (await second.ended).result], ['01build', '01build'])
  assert.deepStrictEqual(notes(dir), ['called'])
})

test('two calls under one name in one build share one call of the function', async t => {
  const dir = folder(t)
  const body = `const fn = async () => { note('called'); return 1 }
    return await Promise.all([checkpoint('one', fn), checkpoint('one', fn)])`
  const ended = await run(dir, body)
  assert.deepStrictEqual([ended.result, ended.notes], [[1, 1], ['called']])
})

test('a result that is too large or no JSON is refused by name', async t => {
  const dir = folder(t)
  const large = "await checkpoint('big', () => require('crypto').randomBytes(2 << 20).toString('base64'))"
  assert.match((await run(dir, large)).log, /its result has \d+ bytes, compressed; at most/)
  assert.strictEqual((await run(dir, "await checkpoint('odd', () => { const a = {}; a.a = a; return a })")).code, 1)
})

test('outside of a worker it says what is missing', async t => {
  const dir = folder(t)
  assert.match((await run(dir, ONCE, { PATH: process.env.PATH })).log, /BRIGADE_BUILD_ID is not set/)
  const nowhere = machine(dir)
  delete nowhere.BRIGADE_CHECKPOINTS
  assert.match((await run(dir, ONCE, nowhere)).log, /no place for checkpoints/)
})
