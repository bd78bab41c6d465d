'use strict'
// Durable jobs in scripts that the one-machine worker runs, with jobs as processes.

// The worker's own harness reads it when it is loaded.
if (process.env.DURABLE_NODE) process.env.BRIDGE_WORKER_NODE = process.env.DURABLE_NODE

const assert = require('assert')
const fs = require('fs')
const path = require('path')
const { test } = require('node:test')

const { PACKAGE, folder, notes } = require('./harness')
const worker = require('../../tests/worker/harness')

const LABELS = {
  'bridge.brigade.sh/run': 'widgets-1',
  'bridge.brigade.sh/epoch': '1',
  'bridge.brigade.sh/step': 'test'
}

/** A project whose brigade.js handles push with `body`; `start(id)` runs it as the build `id`. */
function project (t, body) {
  const dir = folder(t)
  const script = `const { events, Job, Group } = require("brigadier")
const { DurableJob, checkpoint, retry, emit } = require(${JSON.stringify(PACKAGE)})
const NOTES = ${JSON.stringify(path.join(dir, 'notes'))}
events.on("push", async (e, p) => { ${body} })`
  const start = (id, changes = {}) => {
    const made = worker.build(t, script, {
      id,
      labels: LABELS,
      checkpoints: path.join(dir, 'checkpoints'),
      emitted: path.join(dir, 'emitted'),
      cacheRoot: path.join(dir, 'caches'),
      ...changes,
      event: { buildID: id, workerID: `brigade-worker-${id}`, ...changes.event },
      project: changes.project
    })
    const child = worker.start(made)
    return Object.assign(child, { made })
  }
  return { dir, start, run: (id, changes) => start(id, changes).ended, notes: () => notes(dir) }
}

const FOUR = `for (const name of ["one", "two", "three", "four"]) {
    const job = new DurableJob(name, "alpine", ["echo out of " + name, "echo " + name + " >> " + NOTES,
      name === "three" ? "while [ ! -f " + NOTES + ".go ]; do sleep 0.05; done" : "true"])
    console.log("RESULT " + (await job.run()).toString().trim())
  }`

test('a build after a killed worker skips what was finished, with its log, and runs the rest once', async t => {
  const made = project(t, FOUR)
  const first = made.start('01build')
  await worker.until(() => made.notes().length === 3, 'the third job')
  first.kill('SIGKILL')
  await first.ended
  fs.writeFileSync(path.join(made.dir, 'notes.go'), '')
  const second = await made.run('02build')
  assert.strictEqual(second.code, 0, second.log)
  assert.deepStrictEqual(made.notes(), ['one', 'two', 'three', 'three', 'four'])
  assert.deepStrictEqual(second.lines.filter(line => /^RESULT/.test(line)),
    ['one', 'two', 'three', 'four'].map(name => `RESULT out of ${name}`))
  assert.match(second.log, /\[durable\] one: done already in build 01build, skipped/)
  assert.match(second.log, /\[durable\] three: three of build 01build is lost/)
})

test('a job that another living worker runs is waited for', async t => {
  const made = project(t, FOUR)
  const first = made.start('01build')
  await worker.until(() => made.notes().length === 3, 'the third job')
  const second = made.start('02build')
  await worker.until(() => /three: waiting for three, begun in build 01build/.test(second.output()), 'the second to wait')
  fs.writeFileSync(path.join(made.dir, 'notes.go'), '')
  const ended = await Promise.all([first.ended, second.ended])
  assert.deepStrictEqual(ended.map(one => one.code), [0, 0], ended[1].log)
  assert.deepStrictEqual(made.notes(), ['one', 'two', 'three', 'four'])
})

test('a flaky job passes on its third attempt; each has its own name, at the longest too', async t => {
  const name = 'a-name-of-thirty-six-characters-long'
  assert.strictEqual(name.length, 36)
  const made = project(t, `const job = new DurableJob("${name}", "alpine",
      ["echo x >> " + NOTES, "test $(wc -l < " + NOTES + ") -ge 3", "echo passed"], { attempts: 3, backoff: 1 })
    console.log("RESULT " + await job.run(), job.podName, await job.logs())`)
  const ended = await made.run('01build')
  assert.strictEqual(ended.code, 0, ended.log)
  const states = fs.readdirSync(path.join(ended ? made.dir : '', 'checkpoints'))
  assert.strictEqual(states.length, 1)
  const jobs = [...new Set(ended.log.match(/Creating pod (\S+)/g))]
  assert.strictEqual(jobs.length, 3)
  for (const job of jobs) assert.match(job, /^Creating pod [a-z0-9-]{1,36}-01build$/)
  assert.match(ended.log, /RESULT passed/)
  assert.match(ended.log, /failed \(1 of 3\): .*; trying again/)
})

test('a job that fails each time is an error after its attempts, and is tried anew by the next build', async t => {
  const made = project(t, `await new DurableJob("bad", "", ["echo x >> " + NOTES, "exit 3"], { attempts: 2, backoff: 1 }).run()`)
  for (const [id, runs] of [['01build', 2], ['02build', 4]]) {
    const ended = await made.run(id)
    assert.strictEqual(ended.code, 1)
    assert.match(ended.log, /failed to run to completion/)
    assert.strictEqual(made.notes().length, runs)
  }
})

test('a job over its time is stopped before the next attempt begins', async t => {
  const made = project(t, `const job = new DurableJob("slow", "",
      ["echo begin >> " + NOTES, "trap 'echo end >> " + NOTES + "; exit 1' TERM", "sleep 60 & wait"], { attempts: 2, backoff: 1 })
    job.timeout = 300
    await job.run()`)
  const ended = await made.run('01build')
  assert.match(ended.log, /time limit \(300 ms\) exceeded/)
  assert.deepStrictEqual(made.notes(), ['begin', 'end', 'begin', 'end'])
})

test('a changed image, task or variable runs a job again; a variable that is to be ignored does not', async t => {
  const made = project(t, `const told = JSON.parse(e.payload)
    const job = new DurableJob("job", told.image || "alpine", ["echo x >> " + NOTES, told.task || "true"],
      { ignoreEnv: ["TOKEN"] })
    Object.assign(job.env, { TOKEN: e.buildID, LEVEL: told.level || "1" })
    await job.run()`)
  let builds = 0
  const runWith = async told => {
    const id = `0${++builds}build`
    const ended = await made.run(id, { event: { payload: JSON.stringify(told) } })
    assert.strictEqual(ended.code, 0, ended.log)
    return made.notes().length
  }
  const counts = []
  for (const told of [{}, {}, { image: 'debian' }, { task: 'echo' }, { level: '2' }, { level: '2' }]) counts.push(await runWith(told))
  assert.deepStrictEqual(counts, [1, 1, 2, 3, 4, 4])
})

test('a rerun runs a finished job again', async t => {
  const made = project(t, 'await new DurableJob("job", "", ["echo x >> " + NOTES]).run()')
  await made.run('01build')
  await made.run('02build', { labels: { ...LABELS, 'bridge.brigade.sh/epoch': '2' } })
  assert.strictEqual(made.notes().length, 2)
})

test('a job with shared storage refuses, unless it is told to be stateless', async t => {
  const made = project(t, `const job = new DurableJob("job", "", ["true"], { stateless: e.payload === "stateless" })
    job.storage.enabled = true
    await job.run()`)
  const refused = await made.run('01build')
  assert.strictEqual(refused.code, 1)
  assert.match(refused.log, /job job uses storage that it shares with others, and is not durable/)
  assert.strictEqual((await made.run('02build', { event: { payload: 'stateless' } })).code, 0)
})

test('attempts share one cache, the one of the job\'s name', async t => {
  const made = project(t, `const job = new DurableJob("job", "", ["echo x >> $BRIGADE_CACHE/f", "test $(wc -l < $BRIGADE_CACHE/f) -ge 2"],
      { attempts: 2, backoff: 1 })
    job.cache.enabled = true
    await job.run()`)
  const ended = await made.run('01build')
  assert.strictEqual(ended.code, 0, ended.log)
  assert.deepStrictEqual(fs.readdirSync(path.join(made.dir, 'caches', 'brigade-4a2b')), ['job'])
})

test('durable jobs run in groups, beside plain ones', async t => {
  const made = project(t, `const durable = name => new DurableJob(name, "", ["echo " + name + " >> " + NOTES])
    const results = await Group.runAll([durable("a"), durable("b"), new Job("c", "", ["echo c >> " + NOTES])])
    console.log("RESULTS " + results.length, durable("d") instanceof Job)`)
  const first = await made.run('01build')
  assert.match(first.log, /RESULTS 3 true/)
  await made.run('02build')
  assert.deepStrictEqual(made.notes().sort(), ['a', 'b', 'c', 'c'])
})

test('the same job twice in one build is run once', async t => {
  const made = project(t, `const durable = () => new DurableJob("a", "", ["echo a >> " + NOTES, "echo said"])
    const results = await Group.runAll([durable(), durable()])
    console.log("RESULTS " + results.map(String).join("").replace(/\\n/g, " "))`)
  const ended = await made.run('01build')
  assert.match(ended.log, /RESULTS said said/)
  assert.deepStrictEqual(made.notes(), ['a'])
})

test('a job of a name that Brigade refuses, a wrong option and a job without a task are errors by name', async t => {
  for (const [job, said] of [
    ['new DurableJob("Bad_Name", "")', /job name must be/],
    ['new DurableJob("job", "", { attemps: 3 })', /job job: attemps is not an option of a DurableJob/],
    ['new DurableJob("job", "", { attempts: 0 })', /job job: attempts must be/],
    ['new DurableJob("job", "")', /job job has no tasks/]
  ]) {
    const ended = await project(t, `await ${job}.run()`).run('01build')
    assert.strictEqual(ended.code, 1)
    assert.match(ended.log, said)
  }
})

test('on one machine emit leaves the event for bridge, once for all builds of a step', async t => {
  const made = project(t, 'const { id } = await emit("deploy", { to: "production" }); console.log("EMITTED " + id)')
  const [first, second] = [await made.run('01build'), await made.run('02build')]
  const id = /EMITTED (\w+)/.exec(first.log)[1]
  assert.match(second.log, new RegExp(`build ${id} was started before`))
  const outbox = path.join(made.dir, 'emitted')
  assert.deepStrictEqual(fs.readdirSync(outbox), [id])
  const told = JSON.parse(fs.readFileSync(path.join(outbox, id)))
  assert.deepStrictEqual([told.event, Buffer.from(told.payload, 'base64').toString()], ['deploy', '{"to":"production"}'])
  fs.renameSync(path.join(outbox, id), path.join(outbox, `${id}.taken`))
  assert.match((await made.run('03build')).log, /was started before/)
  assert.deepStrictEqual(fs.readdirSync(outbox), [`${id}.taken`])
})
