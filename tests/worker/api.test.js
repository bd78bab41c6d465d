'use strict'
// What a script finds in require("brigadier"), in e and in p, and in Job and Group.

const assert = require('assert')
const fs = require('fs')
const path = require('path')
const { test } = require('node:test')

const { build, onPush, put, run, start } = require('./harness')

/** The value that a handler of push returns, carried out as JSON. */
async function valueOf (t, body, changes) {
  const result = await run(t, onPush(`console.log("VALUE " + JSON.stringify(await (async () => { ${body} })()))`), changes)
  const line = result.lines.find(line => line.startsWith('VALUE '))
  assert.ok(line, result.log)
  return line === 'VALUE undefined' ? undefined : JSON.parse(line.slice(6))
}

test('all names of the library are one module', async t => {
  assert.deepStrictEqual(await valueOf(t, `return ["brigade", "@brigadecore/brigadier", "@brigadecore/brigadier/out/job"]
    .map(name => require(name) === require("brigadier"))`), [true, true, true])
})

test('a library that the script requires gets the same module', async t => {
  const made = build(t, 'const { events } = require("brigadier"); require("./lib/steps")(events)')
  put(made.project, { 'lib/steps.js': 'module.exports = events => events.on("push", () => console.log("same", ' +
    'require("@brigadecore/brigadier").events === events))' })
  assert.ok((await start(made).ended).lines.includes('same true'))
})

test('other modules are found beside the script', async t => {
  const made = build(t, onPush('console.log(require("left"), require("./data.json").n)'))
  put(made.project, { 'node_modules/left/index.js': 'module.exports = "left"', 'data.json': '{"n": 1}' })
  assert.ok((await start(made).ended).lines.includes('left 1'))
})

test('a script outside of the repository reaches the repository\'s files with ./', async t => {
  const made = build(t, onPush('console.log(require("./ci/steps"))'))
  const source = put(path.join(made.root, 'checkout'), { 'ci/steps.js': 'module.exports = "from the checkout"' })
  made.told.source = source
  put(made.dir, { 'build.json': JSON.stringify(made.told) })
  assert.ok((await start(made).ended).lines.includes('from the checkout'))
})

test('a script in a package of type module is still CommonJS', async t => {
  const made = build(t, onPush('console.log("ran")'))
  put(made.project, { 'package.json': '{"type": "module"}' })
  assert.ok((await start(made).ended).lines.includes('ran'))
})

test('e has the fields of a Brigade event', async t => {
  assert.deepStrictEqual(await valueOf(t, 'return e'), {
    buildID: '01build',
    workerID: 'brigade-worker-01build',
    type: 'push',
    provider: 'github',
    cloneURL: '',
    revision: { commit: 'c0ffee', ref: 'refs/heads/main' },
    payload: '{"ref":"refs/heads/main"}',
    logLevel: 1
  })
})

test('the payload comes from its file when there is one, and is a string', async t => {
  const made = build(t, onPush('console.log(typeof e.payload, e.payload.length, e.payload)'))
  put(made.dir, { payload: '{"title":"\u00fcber \u{1f680}"}' })
  assert.ok((await start(made).ended).lines.includes('string 19 {"title":"\u00fcber \u{1f680}"}'))
})

test('an absent payload is the empty string', async t => {
  assert.strictEqual(await valueOf(t, 'return e.payload', { event: { payload: undefined } }), '')
})

test('p has the fields of a Brigade project, the two names swapped as Brigade does', async t => {
  const p = await valueOf(t, 'return p')
  assert.strictEqual(p.name, 'github.com/acme/widgets')
  assert.deepStrictEqual(p.repo,
    { name: 'acme/widgets', cloneURL: 'https://git.invalid/acme/widgets.git', initGitSubmodules: false })
  assert.deepStrictEqual([p.id, p.secrets, p.allowPrivilegedJobs, p.allowHostMounts],
    ['brigade-4a2b', { token: 'secret-of-the-project' }, true, false])
  assert.deepStrictEqual(Object.keys(p.kubernetes).sort(), ['buildStorageClass', 'buildStorageSize',
    'cacheStorageClass', 'namespace', 'vcsSidecar', 'vcsSidecarResourcesLimitsCPU', 'vcsSidecarResourcesLimitsMemory',
    'vcsSidecarResourcesRequestsCPU', 'vcsSidecarResourcesRequestsMemory'])
})

test('a project without a repository keeps its name and has no repo', async t => {
  assert.deepStrictEqual(await valueOf(t, 'return [p.name, p.repo === undefined]', { project: { repo: null } }),
    ['acme/widgets', true])
})

test('a new Job has Brigade\'s defaults', async t => {
  const job = await valueOf(t, 'return new Job("unit", "golang:1.22", ["go test"])')
  assert.deepStrictEqual(job, {
    name: 'unit',
    shell: '/bin/sh',
    tasks: ['go test'],
    args: [],
    env: {},
    image: 'golang:1.22',
    imageForcePull: false,
    imagePullSecrets: [],
    mountPath: '/src',
    timeout: 900000,
    useSource: true,
    privileged: false,
    resourceRequests: {},
    resourceLimits: {},
    host: { nodeSelector: {} },
    cache: { enabled: false, size: '5Mi', path: '/mnt/brigade/cache' },
    storage: { enabled: false, path: '/mnt/brigade/share' },
    volumes: [],
    volumeMounts: [],
    docker: { enabled: false },
    annotations: {},
    streamLogs: false,
    _podName: ''
  })
})

test('job names are checked by Brigade\'s rule', async t => {
  const { jobNameIsValid } = require('../../bridge/local/worker/jobs')
  for (const good of ['a', 'unit-test', 'v1.2', '0', 'a'.repeat(36)]) assert.ok(jobNameIsValid(good), good)
  for (const bad of ['', 'Unit', '-a', 'a-', 'a_b', 'a/b', '..', 'a\n', 'a'.repeat(37), undefined, 'a'.repeat(35) + '_']) {
    assert.ok(!jobNameIsValid(bad), String(bad))
  }
  assert.match(await valueOf(t, 'try { new Job("Unit Test") } catch (x) { return x.message }'),
    /^job name must be lowercase letters/)
})

test('a result is the job\'s output, logs() the same, podName its name', async t => {
  assert.deepStrictEqual(await valueOf(t, `const j = new Job("unit", "img", ["echo one", "echo two >&2"])
    const before = [j.podName, await j.logs().catch(x => x.message)]
    const r = await j.run()
    return [before, r.toString(), \`\${r}\`, await j.logs(), j.podName]`),
  [['', 'job unit has no logs: it was not run'], 'one\ntwo\n', 'one\ntwo\n', 'one\ntwo\n', 'unit-01build'])
})

test('logs() of a running job is the output so far', async t => {
  assert.strictEqual(await valueOf(t, `const fs = require("fs"), path = require("path")
    const j = new Job("unit", "img", ["echo started; until [ -e go ]; do sleep 0.05; done; echo over"])
    const done = j.run()
    while (!(await j.logs()).includes("started")) await new Promise(r => setTimeout(r, 20))
    const sofar = await j.logs()
    fs.writeFileSync(path.join(process.argv[2], "work/unit/go"), "")
    await done
    return sofar`), 'started\n')
})

test('the same job name twice in a build collides', async t => {
  const result = await run(t, onPush(`await new Job("unit", "img", ["true"]).run()
    await new Job("unit", "img", ["echo second ran"]).run()`))
  assert.strictEqual(result.code, 1)
  assert.ok(result.log.includes('job unit(unit-01build): Error: secrets "unit-01build" already exists'))
  assert.ok(!result.log.includes('second ran'))
})

test('a job outside of a handler is refused', async t => {
  const result = await run(t, 'const { Job } = require("brigadier"); new Job("early", "img", ["true"]).run()')
  assert.strictEqual(result.code, 1)
  assert.match(result.log, /job early was run before an event was fired/)
})

test('runEach runs in order and stops at the first failure', async t => {
  const result = await run(t, onPush(`const g = new Group([new Job("one", "img", ["echo 1"])])
    g.add(new Job("two", "img", ["exit 1"]), new Job("three", "img", ["echo 3"]))
    console.log("length", g.length())
    await g.runEach()`))
  assert.strictEqual(result.code, 1)
  assert.ok(result.lines.includes('length 3'))
  assert.ok(result.lines.includes('[one] 1'))
  assert.ok(!result.lines.includes('[three] 3'))
})

test('runAll runs at the same time and answers in the order of the jobs', async t => {
  // Each waits for the other: one after the other they would never end.
  const body = `const meet = (mine, other) => {
      const j = new Job(mine, "img", ["touch $BRIGADE_STORAGE/" + mine,
        "until [ -e $BRIGADE_STORAGE/" + other + " ]; do sleep 0.05; done", "echo " + mine])
      j.storage.enabled = true
      return j
    }
    return (await Group.runAll([meet("a", "b"), meet("b", "a")])).map(String)`
  assert.deepStrictEqual(await valueOf(t, body), ['a\n', 'b\n'])
})

test('the static runEach answers with the results', async t => {
  assert.deepStrictEqual(await valueOf(t, `return (await Group.runEach([
    new Job("a", "img", ["echo a"]), new Job("b", "img", ["echo b"])])).map(String)`), ['a\n', 'b\n'])
})

test('a script may fire events of its own', async t => {
  const result = await run(t, onPush(`const { fire } = require("brigadier")
    events.on("deploy", d => console.log("deploying", d.revision.commit, events.has("deploy"), events.has("nothing")))
    fire({ ...e, type: "deploy" }, p)`))
  assert.ok(result.lines.includes('deploying c0ffee true false'))
})

test('the other exports of the library are there', async t => {
  assert.deepStrictEqual(await valueOf(t, `const b = require("brigadier")
    return [b.LogLevel.INFO, b.LogLevel[2], typeof b.ErrorReport, typeof b.ContextLogger, typeof b.Logger,
      typeof b.BrigadeEvent, typeof b.Project, typeof b.JobCache, b.Job.MAX_JOB_NAME_LENGTH, b.brigadeCachePath]`),
  [2, 'INFO', 'function', 'function', 'function', 'function', 'function', 'function', 36, '/mnt/brigade/cache'])
})

test('what cannot be honoured is warned of by name, once in a build', async t => {
  const result = await run(t, onPush(`for (const name of ["a", "b"]) {
      const j = new Job(name, "", ["true"])
      j.serviceAccount = "deployer"; j.host.os = "linux"; j.resourceLimits.cpu = "1"; j.privileged = true
      j.imagePullSecrets = ["s"]; j.annotations = { a: "b" }; j.attempts = 3
      await j.run()
    }`))
  assert.strictEqual(result.code, 0)
  for (const name of ['serviceAccount', 'host', 'resourceLimits', 'privileged', 'imagePullSecrets', 'annotations']) {
    const lines = result.lines.filter(line => line.includes(` ${name} is ignored on the host`))
    assert.strictEqual(lines.length, 1, name)
  }
  assert.ok(result.lines.includes('[brigade:k8s] job a: attempts is not a property of a Job'))
})

for (const [what, body, message] of [
  ['privileged where the project forbids it', 'j.privileged = true', 'allowPrivilegedJobs is false in this project'],
  ['a host mount where the project forbids it', 'j.volumes = [{ name: "v", hostPath: { path: "/etc" } }]',
    'allowHostMounts is false in this project, not mounting /etc'],
  ['a mount of a volume that is not defined', 'j.volumeMounts = [{ name: "v", mountPath: "/v" }]',
    'volume v referenced in volume mount is not defined'],
  ['a variable that is not a string', 'j.env.N = 5', 'the value of N is number, and must be a string'],
  ['a variable with an impossible name', 'j.env["A=B"] = "x"', '"A=B" cannot name a variable'],
  ['tasks that are not a list', 'j.tasks = "make"', 'tasks must be a list']
]) {
  test(`${what} is refused before the job starts`, async t => {
    const made = build(t, onPush(`const j = new Job("unit", "img", ["echo job ran"]); ${body}; await j.run()`),
      { project: { allowPrivilegedJobs: false } })
    const result = await start(made).ended
    assert.strictEqual(result.code, 1)
    assert.ok(result.log.includes(message), result.log)
    assert.deepStrictEqual(fs.readdirSync(path.join(made.dir, 'jobs')), [])
  })
}

test('environment variables arrive as they are, null as empty', async t => {
  assert.strictEqual(await valueOf(t, `const j = new Job("unit", "img", ['printf "%s|%s|%s" "$A" "\${B-unset}" "$C"'])
    j.env = { A: "two\\nlines 'and' \\"quotes\\" $HOME", B: null, C: p.secrets.token }
    return (await j.run()).toString()`), 'two\nlines \'and\' "quotes" $HOME||secret-of-the-project')
})

test('a secretKeyRef is looked up in what the build was given', async t => {
  assert.strictEqual(await valueOf(t, `const j = new Job("unit", "img", ['echo "$A:\${B-unset}"'])
    j.env.A = { secretKeyRef: { name: "deploy", key: "key" } }
    j.env.B = { secretKeyRef: { name: "deploy", key: "none", optional: true } }
    return (await j.run()).toString()`, { clusterSecrets: { deploy: { key: 'value' } } }), 'value:unset\n')
})

test('a secretKeyRef to nothing fails the job', async t => {
  const result = await run(t, onPush(`const j = new Job("unit", "img", ["true"])
    j.env.A = { secretKeyRef: { name: "deploy", key: "constructor" } }; await j.run()`),
  { clusterSecrets: { deploy: { key: 'value' } } })
  assert.match(result.log, /no key constructor in secret deploy for environment variable A/)
})

test('without secrets a secretKeyRef is not set, with Brigade\'s warning', async t => {
  const result = await run(t, onPush(`const j = new Job("unit", "img", ['echo "\${A-unset}"'])
    j.env.A = { secretKeyRef: { name: "deploy", key: "key" } }; await j.run()`))
  assert.ok(result.log.includes(
    'Using secretKeyRef is not allowed in this project, not setting environment variable A'))
  assert.ok(result.lines.includes('[unit] unset'))
})
