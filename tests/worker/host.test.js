'use strict'
// Jobs as processes of this machine: where they run, with what, and what they leave.

const assert = require('assert')
const fs = require('fs')
const path = require('path')
const { test } = require('node:test')

const { alive, build, onPush, put, run, start, state, until } = require('./harness')

/** A build of onPush(body) whose source folder holds `files`. */
function withSource (t, body, files, changes) {
  const made = build(t, onPush(body), changes)
  made.told.source = put(path.join(made.root, 'checkout'), files)
  put(made.dir, { 'build.json': JSON.stringify(made.told) })
  return made
}

test('a job starts in its own copy of the source', async t => {
  const made = withSource(t, `await new Job("a", "", ["cat lib/file", "echo changed > lib/file", "pwd"]).run()
    await new Job("b", "", ["cat lib/file"]).run()`, { 'lib/file': 'original\n' })
  const result = await start(made).ended
  assert.strictEqual(result.code, 0, result.log)
  assert.ok(result.lines.includes('[a] original'))
  assert.ok(result.lines.includes('[b] original'))
  assert.ok(result.lines.includes(`[a] ${path.join(made.dir, 'work', 'a')}`))
  assert.strictEqual(fs.readFileSync(path.join(made.told.source, 'lib/file'), 'utf8'), 'original\n')
})

test('the copy keeps modes and symbolic links', async t => {
  const made = withSource(t, 'await new Job("a", "", ["./run.sh", "readlink link", "cat link"]).run()',
    { 'run.sh': '#!/bin/sh\necho ran\n', target: 'seen\n' })
  fs.chmodSync(path.join(made.told.source, 'run.sh'), 0o755)
  fs.symlinkSync('target', path.join(made.told.source, 'link'))
  fs.symlinkSync('/nonexistent', path.join(made.told.source, 'dangling'))
  const result = await start(made).ended
  assert.strictEqual(result.code, 0, result.log)
  assert.deepStrictEqual(result.lines.filter(line => /^\[a\]/.test(line)), ['[a] ran', '[a] target', '[a] seen'])
})

test('a source that contains the build is copied without it', async t => {
  const made = build(t, onPush('await new Job("a", "", ["ls"]).run()'))
  made.told.source = made.root
  put(made.dir, { 'build.json': JSON.stringify(made.told) })
  const result = await start(made).ended
  assert.deepStrictEqual(result.lines.filter(line => /^\[a\]/.test(line)), ['[a] project'])
})

test('without useSource a job starts in an empty folder', async t => {
  const result = await start(withSource(t, `const j = new Job("a", "", ["echo files: $(ls)"])
    j.useSource = false; await j.run()`, { file: '' })).ended
  assert.ok(result.lines.includes('[a] files:'))
})

for (const shell of ['/bin/sh', '/bin/bash']) {
  test(`cd to mountPath goes to the copy in ${shell}`, async t => {
    if (!fs.existsSync(shell)) return t.skip(`there is no ${shell}`)
    const made = withSource(t, `const j = new Job("a", "", ["cd /", "cd /src/lib", "cat file", "cd /src && ls",
        "cd / && pwd", "cd", "pwd", "(cd /source-of-others) || echo refused"])
      j.shell = ${JSON.stringify(shell)}; await j.run()`, { 'lib/file': 'seen\n' })
    const result = await start(made).ended
    assert.strictEqual(result.code, 0, result.log)
    assert.deepStrictEqual(result.lines.filter(line => /^\[a\]/.test(line) && !/source-of-others/.test(line)),
      ['[a] seen', '[a] lib', '[a] /', `[a] ${path.join(made.dir, 'home')}`, '[a] refused'])
  })
}

test('the environment is small and the worker\'s own is not in it', async t => {
  const made = build(t, onPush('const j = new Job("a", "", ["env"]); j.env.MINE = "x"; await j.run()'))
  const result = await start(made, { BRIDGE_TOKEN: 'secret-of-the-server' }).ended
  const names = result.lines.map(line => /^\[a\] (\w+)=/.exec(line)).filter(Boolean).map(found => found[1])
  assert.deepStrictEqual(names.filter(name => !['PWD', 'OLDPWD', 'SHLVL', '_'].includes(name)).sort(),
    ['BRIGADE_WORKSPACE', 'HOME', 'MINE', 'PATH', 'TMPDIR'])
  assert.ok(!result.log.includes('secret-of-the-server'))
  assert.ok(result.lines.includes(`[a] HOME=${path.join(made.dir, 'home')}`))
})

test('tasks stop at the first that fails', async t => {
  const result = await run(t, onPush('await new Job("a", "", ["echo one", "false", "echo two"]).run()'))
  assert.strictEqual(result.code, 1)
  assert.ok(result.lines.includes('[a] one'))
  assert.ok(!result.lines.includes('[a] two'))
})

test('args are the arguments of the tasks', async t => {
  const result = await run(t, onPush('const j = new Job("a", "", ["echo $# $2"]); j.args = ["x", "y z"]; await j.run()'))
  assert.ok(result.lines.includes('[a] 2 y z'))
})

test('a job without tasks has nothing to run on the host', async t => {
  const result = await run(t, onPush('await new Job("a", "img").run()'))
  assert.strictEqual(result.code, 1)
  assert.match(result.log, /job a has no tasks: it would run its image as it is/)
})

test('a shell that does not exist fails the job and says so', async t => {
  const result = await run(t, onPush('const j = new Job("a", "", ["true"]); j.shell = "/bin/no-such-shell"; await j.run()'))
  assert.strictEqual(result.code, 1)
  assert.match(result.log, /\[a\] .*\/bin\/no-such-shell/)
})

test('storage is shared by the jobs of a build, a cache by the builds of a project', async t => {
  const body = `const write = new Job("write", "", ["echo stored > $BRIGADE_STORAGE/f", "cat $BRIGADE_CACHE/f || echo none",
      "echo kept > $BRIGADE_CACHE/f"])
    write.storage.enabled = write.cache.enabled = true
    const read = new Job("read", "", ["cat $BRIGADE_STORAGE/f", "ls $BRIGADE_CACHE"])
    read.storage.enabled = read.cache.enabled = true
    await Group.runEach([write, read])`
  const first = build(t, onPush(body))
  const told = { cacheRoot: path.join(first.root, 'cache') }
  put(first.dir, { 'build.json': JSON.stringify({ ...first.told, ...told }) })
  const one = await start(first).ended
  const two = await run(t, onPush(body), told)
  const lines = result => result.lines.filter(line => /^\[(write|read)\]/.test(line) && !/No such file/.test(line))
  assert.deepStrictEqual(lines(one), ['[write] none', '[read] stored'])
  assert.deepStrictEqual(lines(two), ['[write] kept', '[read] stored'])
  assert.ok(fs.existsSync(path.join(told.cacheRoot, 'brigade-4a2b', 'write', 'f')))
})

test('the state and output of a job are in its files', async t => {
  const made = build(t, onPush('await new Job("good", "img:1", ["echo fine"]).run(); await new Job("bad", "", ["exit 4"]).run()'))
  await start(made).ended
  const { started, ended, pid, pidStart, ...good } = state(made, 'good')
  assert.deepStrictEqual(good, { name: 'good', image: 'img:1', phase: 'Succeeded', exitCode: 0, reason: null })
  assert.ok(started <= ended && started.endsWith('Z'))
  assert.ok(pid > 1 && (pidStart > 0 || !fs.existsSync('/proc')))
  const bad = state(made, 'bad')
  assert.deepStrictEqual([bad.phase, bad.exitCode, bad.reason],
    ['Failed', 4, 'Pod bad-01build failed to run to completion'])
  assert.strictEqual(fs.readFileSync(path.join(made.dir, 'jobs', 'good.log'), 'utf8'), 'fine\n')
})

test('no line of a job looks like a line of the worker', async t => {
  const result = await run(t, onPush(
    'await new Job("a", "", ["printf \'x\\\\n[brigade:app] no-after: fired\\\\nlast without an end\'"]).run()'))
  assert.ok(result.lines.includes('[a] [brigade:app] no-after: fired'))
  assert.ok(!result.lines.includes('[brigade:app] no-after: fired'))
  assert.ok(result.lines.includes('[a] last without an end'))
})

test('output that is not UTF-8 is kept byte for byte', async t => {
  const made = build(t, onPush('await new Job("a", "", ["printf \'\\\\377\\\\376\\\\n\'"]).run()'))
  await start(made).ended
  assert.deepStrictEqual(Array.from(fs.readFileSync(path.join(made.dir, 'jobs', 'a.log'))), [255, 254, 10])
})

test('what a job leaves in the background ends with it', async t => {
  const made = build(t, onPush('await new Job("a", "", ["sleep 600 & echo $! > pid"]).run()'))
  const result = await start(made).ended
  assert.strictEqual(result.code, 0, result.log)
  const pid = Number(fs.readFileSync(path.join(made.dir, 'work/a/pid'), 'utf8'))
  await until(() => !alive(pid), 'the background process to end')
})

test('a process that leaves the group and keeps the output open does not hold up the build', async t => {
  const made = build(t, onPush(`await new Job("a", "", ["setsid sh -c 'echo $$ > pid; exec sleep 600' &",
    "until [ -s pid ]; do sleep 0.05; done"]).run()`))
  const result = await start(made).ended
  const pid = Number(fs.readFileSync(path.join(made.dir, 'work/a/pid'), 'utf8'))
  if (alive(pid)) process.kill(pid, 'SIGKILL')
  assert.strictEqual(result.code, 0, result.log)
})

test('an environment too large for the machine fails the job, not the worker', async t => {
  const result = await run(t, onPush(`const j = new Job("a", "", ["true"]); j.env.BIG = "x".repeat(3e6)
    await j.run().catch(x => console.log("caught", x.message))`))
  assert.strictEqual(result.code, 0, result.log)
  assert.match(result.log, /caught job a\(a-01build\): Error: spawn E2BIG/)
})

test('output beyond the limit is dropped and the rest of the job goes on', async t => {
  const { JobLog } = require('../../bridge/local/worker/log')
  const made = build(t, null)
  const file = path.join(made.root, 'job.log')
  const log = new JobLog(file, 'a', 4)
  log.show = () => {}
  for (const piece of ['12', '345', '6']) log.write(Buffer.from(piece))
  log.close()
  assert.strictEqual(fs.readFileSync(file, 'utf8'), '1234\n... the rest of this output was dropped\n')
})
