'use strict'
// However the worker ends, its jobs do not go on without it.

const assert = require('assert')
const fs = require('fs')
const path = require('path')
const { test } = require('node:test')

const { alive, build, engine, onPush, start, state, until } = require('./harness')

// Two jobs at once, the second slower to stop; whatever a script does about a failure, a stop is none.
const SCRIPT = onPush(`
  events.on("error", () => console.log("error ran"))
  events.on("after", () => console.log("after ran"))
  const begin = "sleep 600 & echo $! > pid.tmp; mv pid.tmp pid; wait"
  const first = new Job("a", "img", [begin]).run()
  first.catch(() => { console.log("catch ran"); return new Job("c", "img", ["echo c ran"]).run() })
  await Promise.all([first, new Job("b", "img", ["trap 'sleep 0.3; exit 1' TERM", begin]).run()])`)

/** Start SCRIPT; the worker and the pids of what its two jobs started, once both are there. */
async function running (t, made) {
  const worker = start(made)
  const files = ['a', 'b'].map(job => path.join(made.dir, 'work', job, 'pid'))
  await until(() => files.every(file => fs.existsSync(file)), 'both jobs')
  const pids = files.map(file => Number(fs.readFileSync(file, 'utf8')))
  t.after(() => { for (const pid of pids.filter(alive)) process.kill(pid, 'SIGKILL') })
  await until(() => ['a', 'b'].every(job => state(made, job).phase === 'Running'), 'the state of both jobs')
  return { worker, pids }
}

for (const [signal, code] of [['SIGTERM', 143], ['SIGINT', 130]]) {
  test(`${signal} stops the jobs and exits ${code}`, async t => {
    const made = build(t, SCRIPT)
    const { worker, pids } = await running(t, made)
    worker.kill(signal)
    const result = await worker.ended
    assert.strictEqual(result.code, code, result.log)
    await until(() => !pids.some(alive), 'the jobs to end')
    for (const job of ['a', 'b']) {
      assert.strictEqual(state(made, job).phase, 'Failed')
      assert.match(state(made, job).reason, /the worker was told to stop/)
    }
    assert.ok(result.log.includes(`[brigade] ${signal}: stopping 2 job(s)`))
    for (const never of ['error ran', 'after ran', 'catch ran', 'c ran']) assert.ok(!result.log.includes(never), never)
  })
}

test('a job that ignores the signal is ended all the same', async t => {
  const made = build(t, onPush(`await new Job("a", "img", ["trap '' TERM", "sleep 600 & echo $! > pid.tmp; mv pid.tmp pid",
    "while :; do wait; sleep 0.1; done"]).run()`))
  const worker = start(made)
  const file = path.join(made.dir, 'work/a/pid')
  await until(() => fs.existsSync(file), 'the job')
  const pids = [state(made, 'a').pid, Number(fs.readFileSync(file, 'utf8'))]
  worker.kill('SIGTERM')
  assert.strictEqual((await worker.ended).code, 143)
  await until(() => !pids.some(alive), 'the job to end')
  assert.match(state(made, 'a').reason, /SIGKILL/)
})

test('SIGTERM without a job exits 143', async t => {
  const worker = start(build(t, onPush('console.log("waiting"); setInterval(() => {}, 1000)')))
  await until(() => worker.output().includes('waiting'), 'the handler')
  worker.kill('SIGTERM')
  assert.strictEqual((await worker.ended).code, 143)
})

test('jobs of a worker that is killed end with it', async t => {
  const made = build(t, SCRIPT)
  const { worker, pids } = await running(t, made)
  const leaders = ['a', 'b'].map(job => state(made, job).pid)
  worker.kill('SIGKILL')
  assert.strictEqual((await worker.ended).signal, 'SIGKILL')
  await until(() => !pids.concat(leaders).some(alive), 'the jobs to end')
})

test('jobs of a script that calls process.exit end with it, and say so', async t => {
  const made = build(t, onPush(`
    new Job("a", "img", ["sleep 600 & echo $! > pid.tmp; mv pid.tmp pid; wait"]).run()
    const pid = require("path").join(process.argv[2], "work/a/pid")
    setInterval(() => { if (require("fs").existsSync(pid)) process.exit(3) }, 20)`))
  const result = await start(made).ended
  assert.strictEqual(result.code, 3)
  const pid = Number(fs.readFileSync(path.join(made.dir, 'work/a/pid'), 'utf8'))
  await until(() => !alive(pid), 'the job to end')
  assert.deepStrictEqual([state(made, 'a').phase, state(made, 'a').reason], ['Failed', 'the worker ended'])
})

for (const [signal, code] of [['SIGTERM', 143], ['SIGKILL', null]]) {
  test(`containers of a worker that gets ${signal} are removed`, async t => {
    const made = build(t, SCRIPT)
    // Jobs in "containers" of the stand-in start where the real ones do: in their copy of the source.
    made.told.source = made.project
    const stub = engine(made)
    const { worker, pids } = await running(t, made)
    worker.kill(signal)
    assert.strictEqual((await worker.ended).code, code)
    await until(() => !pids.some(alive), 'the containers to end')
    await until(() => ['a-01build', 'b-01build'].every(name => !stub.has(name)), 'the containers to be removed')
    assert.deepStrictEqual(stub.removed().map(argv => argv[2]).sort().filter((n, i, all) => n !== all[i - 1]),
      ['a-01build', 'b-01build'])
  })
}
