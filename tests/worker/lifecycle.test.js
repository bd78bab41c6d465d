'use strict'
// Exit codes and log lines: the table of Brigade's worker, case by case.

const assert = require('assert')
const fs = require('fs')
const path = require('path')
const { test } = require('node:test')

const { build, folder, onPush, put, run, start } = require('./harness')

/** The log without stack frames and without what a version or a name may change. */
function said (result) {
  return result.lines.filter(line => /^\[brigade/.test(line)).map(line => line.replace(/(version:).*/, '$1'))
}

const STARTED = ['[brigade] brigade-worker version:', '[brigade:k8s] Creating PVC named brigade-worker-01build']
const CLEANED = '[brigade:k8s] Destroying PVC named brigade-worker-01build'

test('a handler that returns exits 0 and fires after', async t => {
  const result = await run(t, onPush(''))
  assert.strictEqual(result.code, 0)
  assert.deepStrictEqual(said(result), [...STARTED, '[brigade:app] after: default event handler fired',
    '[brigade:app] beforeExit(2): destroying storage', CLEANED])
})

test('an event without a handler exits 0 and says no-after', async t => {
  const result = await run(t, onPush(''), { event: { type: 'pull_request:labeled' } })
  assert.strictEqual(result.code, 0)
  assert.deepStrictEqual(said(result), [...STARTED, '[brigade:app] no-after: fired',
    '[brigade:app] beforeExit(2): destroying storage', CLEANED])
})

for (const [what, script] of [['is missing', null], ['is empty', '']]) {
  test(`a script that ${what} is an event without a handler`, async t => {
    const result = await run(t, script)
    assert.strictEqual(result.code, 0)
    assert.ok(result.lines.includes('[brigade:app] no-after: fired'))
  })
}

for (const [what, body] of [
  ['throws at once', 'events.on("push", () => { throw new Error("boom") })'],
  ['rejects', 'events.on("push", async () => { await null; throw new Error("boom") })']
]) {
  test(`a handler that ${what} exits 1 with the reason and no after`, async t => {
    const result = await run(t, `const { events } = require("brigadier")
      events.on("after", () => console.log("after ran")); ${body}`)
    assert.strictEqual(result.code, 1)
    assert.deepStrictEqual(said(result), [...STARTED, '[brigade:app] Error: boom',
      '[brigade:app] error handler is cleaning up', CLEANED])
    assert.ok(!result.log.includes('after ran'))
  })
}

test('a failed job that nobody catches exits 1 with Brigade\'s message', async t => {
  const result = await run(t, onPush('await new Job("unit", "img", ["exit 3"]).run()'))
  assert.strictEqual(result.code, 1)
  assert.ok(result.lines.includes('Error: Pod unit-01build failed to run to completion'))
  assert.ok(result.lines.includes('[brigade:app] Error: job unit(unit-01build): ' +
    'Error: Pod unit-01build failed to run to completion'))
})

test('a failed job that is caught is the script\'s own affair', async t => {
  const result = await run(t, onPush('await new Job("unit", "img", ["exit 3"]).run().catch(() => {})'))
  assert.strictEqual(result.code, 0)
})

test('a job over its time exits 1 and says which limit', async t => {
  const result = await run(t, onPush('const j = new Job("slow", "img", ["sleep 600"]); j.timeout = 200; await j.run()'))
  assert.strictEqual(result.code, 1)
  assert.ok(result.log.includes('job slow(slow-01build): Error: time limit (200 ms) exceeded'))
})

test('a time limit beyond what a timer can hold is none', async t => {
  const result = await run(t, onPush('const j = new Job("a", "img", ["sleep 0.1"]); j.timeout = 1e12; await j.run()'))
  assert.strictEqual(result.code, 0, result.log)
})

test('a syntax error exits 1 with a stack, before the version line', async t => {
  const result = await run(t, 'events.on((')
  assert.strictEqual(result.code, 1)
  assert.match(result.log, /brigade\.js:1\nevents\.on\(\(\n/)
  assert.match(result.log, /SyntaxError/)
  assert.ok(!result.log.includes('brigade-worker version'))
})

test('a require that finds nothing exits 1 before the version line', async t => {
  const result = await run(t, 'require("no-such-module")')
  assert.strictEqual(result.code, 1)
  assert.match(result.log, /Cannot find module 'no-such-module'/)
  assert.ok(!result.log.includes('brigade-worker version'))
})

test('a throw in a timer exits 1 without an error event', async t => {
  const result = await run(t, onPush('events.on("error", () => console.log("error ran")); ' +
    'setTimeout(() => { throw new Error("late") }, 1)'))
  assert.strictEqual(result.code, 1)
  assert.match(result.log, /Error: late/)
  assert.ok(!result.log.includes('error ran'))
})

test('process.exit(n) in a script exits n', async t => {
  assert.strictEqual((await run(t, onPush('process.exit(7)'))).code, 7)
})

test('process.exitCode of a script is kept, and after is told of a failure', async t => {
  const result = await run(t, onPush('process.exitCode = 5; events.on("after", a => console.log(a.cause.trigger))'))
  assert.strictEqual(result.code, 5)
  assert.ok(result.lines.includes('failure'))
})

test('process.exit(0) after an error still exits 1', async t => {
  const result = await run(t, onPush('events.on("error", () => setTimeout(() => process.exit(0), 1)); throw new Error("x")'))
  assert.strictEqual(result.code, 1)
})

test('after gets the event as its cause, and may run jobs', async t => {
  const result = await run(t, onPush(`events.on("after", async (a, p) => {
    console.log(JSON.stringify([a.type, a.provider, a.buildID, a.workerID, a.revision.commit, a.payload, a.cause.trigger]))
    console.log(a.cause.event === e, p.name)
    await new Job("tidy", "img", ["echo tidied"]).run()
  })`))
  assert.strictEqual(result.code, 0)
  assert.ok(result.lines.includes('["after","brigade","01build","brigade-worker-01build","c0ffee",null,"success"]'))
  assert.ok(result.lines.includes('true github.com/acme/widgets'))
  assert.ok(result.lines.includes('[tidy] tidied'))
})

test('after is fired once', async t => {
  const result = await run(t, onPush('events.on("after", () => { console.log("after ran"); setTimeout(() => {}, 20) })'))
  assert.strictEqual(result.lines.filter(line => line === 'after ran').length, 1)
})

test('an error in after exits 1', async t => {
  const result = await run(t, onPush('events.on("after", async () => { throw new Error("in after") })'))
  assert.strictEqual(result.code, 1)
  assert.ok(result.lines.includes('[brigade:app] Error: in after'))
})

test('error is fired once, with the reason and the event as its cause', async t => {
  const result = await run(t, onPush(`events.on("error", x => console.log(
      "caught", x.type, x.provider, x.cause.trigger, x.cause.reason.message, x.cause.event === e))
    Promise.reject(new Error("first")); await null; throw new Error("second")`))
  assert.strictEqual(result.code, 1)
  assert.deepStrictEqual(result.lines.filter(line => /^caught/.test(line)),
    ['caught error brigade unhandledRejection first true'])
  assert.ok(result.lines.includes('[brigade:app] Error: second'))
})

test('error handlers may run jobs', async t => {
  const result = await run(t, onPush(`events.on("error", () => new Job("report", "img", ["echo reported"]).run())
    throw new Error("x")`))
  assert.strictEqual(result.code, 1)
  assert.ok(result.lines.includes('[report] reported'))
})

test('after an error the jobs that still run are waited for', async t => {
  // The good job ends only once the error handler has run.
  const result = await run(t, onPush(`
    events.on("error", () => require("fs").writeFileSync(require("path").join(process.argv[2], "work/good/go"), ""))
    await Group.runAll([
      new Job("bad", "img", ["exit 1"]),
      new Job("good", "img", ["until [ -e go ]; do sleep 0.05; done", "echo finished"])
    ])`))
  assert.strictEqual(result.code, 1)
  assert.ok(result.lines.includes('[good] finished'))
})

test('a level of info hides what is said at log, as in Brigade', async t => {
  const result = await run(t, onPush(''), { event: { logLevel: 'INFO' } })
  assert.deepStrictEqual(said(result), ['[brigade:app] after: default event handler fired'])
})

test('ping is answered', async t => {
  const result = await run(t, onPush(''), { event: { type: 'ping' } })
  assert.ok(result.lines.includes('ping'))
  assert.ok(result.lines.includes('[brigade:app] after: default event handler fired'))
})

test('a second worker of the same build is refused and touches nothing', async t => {
  const made = build(t, onPush('console.log("handler ran")'))
  assert.strictEqual((await start(made).ended).code, 0)
  const again = await start(made).ended
  assert.strictEqual(again.code, 78)
  assert.match(again.log, /build 01build has had a worker already/)
  assert.ok(!again.log.includes('handler ran'))
})

for (const [what, text, message] of [
  ['is not JSON', '{"id": "secret', 'cannot read build.json: it is not JSON'],
  ['has no script', '{"id":"1","project":{},"event":{}}', 'build.json has no script'],
  ['names no way to run jobs', '{"id":"1","project":{},"event":{},"script":"/x"}', 'jobs is neither container nor host'],
  ['names no engine', '{"id":"1","project":{},"event":{},"script":"/x","jobs":"container"}', 'container.command is empty']
]) {
  test(`a build.json that ${what} exits 78 and says so`, async t => {
    const dir = put(folder(t), { 'build.json': text })
    const result = await start({ dir }).ended
    assert.strictEqual(result.code, 78)
    assert.ok(result.log.includes(message), result.log)
    assert.ok(!result.log.includes('secret'))
  })
}

test('a source folder that is gone fails the build with the reason', async t => {
  const result = await run(t, onPush(''), { source: '/nonexistent/source' })
  assert.strictEqual(result.code, 1)
  assert.match(result.log, /source folder that build\.json names does not exist/)
})

test('everything is said on stdout, in order', async t => {
  const result = await run(t, onPush('console.log("one"); console.error("two"); console.warn("three")'))
  assert.strictEqual(result.err, '')
  assert.match(result.log, /one\ntwo\nthree\n/)
})

test('storage is there during the build and gone after it', async t => {
  const made = build(t, onPush('console.log(require("fs").readdirSync(process.argv[2]).sort().join())'))
  const result = await start(made).ended
  assert.ok(result.lines.includes('build.json,hook,jobs,storage,work'))
  assert.ok(!fs.existsSync(path.join(made.dir, 'storage')))
})
