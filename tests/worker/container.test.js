'use strict'
// Jobs as containers: what the engine is asked to run, and that nothing of it is left.

const assert = require('assert')
const fs = require('fs')
const path = require('path')
const { test } = require('node:test')

const { after, build, engine, folder, onPush, put, start, state } = require('./harness')

/** Run onPush(body) with the stand-in engine and a source folder; [result, argument lists of run, build]. */
async function asked (t, body, changes = {}) {
  const made = build(t, onPush(body), changes)
  made.told.source = put(path.join(made.root, 'checkout'), { file: 'seen\n' })
  const stub = engine(made)
  const result = await start(made).ended
  return { result, runs: stub.runs(), removed: stub.removed(), made }
}

test('a job runs its tasks in its image with the source at mountPath', async t => {
  const { result, runs: [argv], made } = await asked(t,
    'const j = new Job("unit", "alpine:3", ["cat file", "echo $# $1"]); j.args = ["x"]; await j.run()')
  assert.strictEqual(result.code, 0, result.log)
  assert.deepStrictEqual(argv.slice(0, 5), ['run', '--rm', '--init', '--name', 'unit-01build'])
  assert.deepStrictEqual(argv.slice(-5), ['--entrypoint', '/bin/sh', 'alpine:3', '/hook/main.sh', 'x'])
  assert.deepStrictEqual(after(argv, '-w'), ['/src'])
  assert.deepStrictEqual(after(argv, '-v'),
    [`${made.dir}/hook/unit:/hook:ro`, `${made.dir}/work/unit:/src`])
  assert.ok(result.lines.includes('[unit] seen'))
  assert.ok(result.lines.includes('[unit] 1 x'))
  assert.deepStrictEqual([state(made, 'unit').phase, state(made, 'unit').container], ['Succeeded', 'unit-01build'])
})

test('whoever the image runs as can read the source, which is private outside', async t => {
  const made = build(t, onPush('await new Job("unit", "alpine", ["stat -c %a . lib lib/file run.sh"]).run()'))
  made.told.source = put(path.join(made.root, 'checkout'), { 'lib/file': 'seen\n', 'run.sh': 'true\n' })
  for (const [name, mode] of [['lib', 0o700], ['lib/file', 0o600], ['run.sh', 0o700]]) {
    fs.chmodSync(path.join(made.told.source, name), mode)
  }
  engine(made)
  const result = await start(made).ended
  assert.deepStrictEqual(result.lines.filter(line => /^\[unit\]/.test(line)),
    ['[unit] 777', '[unit] 755', '[unit] 644', '[unit] 755'])
})

test('a container carries the labels of the build and Brigade\'s own', async t => {
  const { runs: [argv] } = await asked(t, 'await new Job("unit", "alpine", ["true"]).run()')
  assert.deepStrictEqual(after(argv, '--label').sort(), ['bridge.brigade.sh/run=r-1', 'build=01build', 'component=job',
    'heritage=brigade', 'jobname=unit', 'project=brigade-4a2b', 'worker=brigade-worker-01build'])
})

test('values of variables and tasks are not on the command line', async t => {
  const { result, runs: [argv] } = await asked(t, `const j = new Job("unit", "alpine", ["echo $TOKEN; echo task-secret"])
    j.env.TOKEN = p.secrets.token; j.env.EMPTY = null; await j.run()`)
  assert.deepStrictEqual(after(argv, '--env'), ['TOKEN', 'EMPTY'])
  assert.ok(!argv.join(' ').includes('secret'))
  assert.ok(result.lines.includes('[unit] secret-of-the-project'))
})

test('variables that would change the engine\'s own command go to the container only', async t => {
  const { result, runs: [argv] } = await asked(t, `const j = new Job("unit", "alpine", ["echo $DOCKER_HOST $DOCKER_PASSWORD"])
    j.env = { PATH: "/nowhere:/bin:/usr/bin", DOCKER_HOST: "tcp://x", DOCKER_PASSWORD: "pw", "a.b": "c" }; await j.run()`)
  assert.deepStrictEqual(after(argv, '--env'), ['PATH=/nowhere:/bin:/usr/bin', 'DOCKER_HOST=tcp://x', 'DOCKER_PASSWORD', 'a.b=c'])
  assert.ok(result.lines.includes('[unit] tcp://x pw'))
})

test('an image without tasks runs as it is', async t => {
  const { result, runs: [argv] } = await asked(t, 'const j = new Job("unit", "kaniko"); j.args = ["--x"]; await j.run()')
  assert.strictEqual(result.code, 0)
  assert.deepStrictEqual(argv.slice(-2), ['kaniko', '--x'])
  assert.ok(!argv.includes('--entrypoint') && !argv.includes('-w'))
})

test('without useSource nothing is mounted at mountPath', async t => {
  const { runs: [argv], made } = await asked(t, 'const j = new Job("unit", "alpine", ["true"]); j.useSource = false; await j.run()')
  assert.deepStrictEqual(after(argv, '-v'), [`${made.dir}/hook/unit:/hook:ro`])
  assert.ok(!argv.includes('-w'))
})

test('shell, mountPath, limits, pull and privilege are honoured', async t => {
  const { runs: [argv], made } = await asked(t, `const j = new Job("unit", "alpine", ["true"], true)
    j.shell = "/bin/bash"; j.mountPath = "/go/src/app"; j.privileged = true
    j.resourceLimits = { cpu: "500m", memory: "128Mi" }; await j.run().catch(() => {})`)
  assert.deepStrictEqual(after(argv, '--entrypoint'), ['/bin/bash'])
  assert.deepStrictEqual(after(argv, '-w'), ['/go/src/app'])
  assert.deepStrictEqual(after(argv, '--cpus'), ['0.5'])
  assert.deepStrictEqual(after(argv, '--memory'), ['134217728'])
  assert.deepStrictEqual(after(argv, '--pull'), ['always'])
  assert.ok(argv.includes('--privileged'))
  assert.match(fs.readFileSync(path.join(made.dir, 'hook/unit/main.sh'), 'utf8'), /^#!\/bin\/bash\n\nset -eo pipefail\n/)
})

test('storage, cache and volumes are mounted', async t => {
  const cacheRoot = folder(t)
  const { runs: [argv], made, result } = await asked(t, `const j = new Job("unit", "alpine", ["true"])
    j.storage.enabled = j.cache.enabled = j.docker.enabled = true; j.cache.path = "/cache"
    j.volumes = [{ name: "etc", hostPath: { path: "/etc" } }, { name: "tmp", emptyDir: {} }, { name: "s", secret: {} }]
    j.volumeMounts = [{ name: "etc", mountPath: "/host-etc", readOnly: true }, { name: "tmp", mountPath: "/scratch" },
      { name: "s", mountPath: "/s" }]
    await j.run()`, { cacheRoot, project: { id: '../up', allowHostMounts: true } })
  assert.deepStrictEqual(after(argv, '-v').slice(2), [`${cacheRoot}/%2E%2E%2Fup/unit:/cache`,
    `${made.dir}/storage:/mnt/brigade/share`, '/var/run/docker.sock:/var/run/docker.sock', '/etc:/host-etc:ro',
    `${made.dir}/volumes/unit/tmp:/scratch`])
  assert.ok(result.lines.includes('[brigade:k8s] job unit: volumes of secret are not supported, not mounting s'))
})

test('a project without host mounts gets no docker socket, and is told', async t => {
  const { runs: [argv], result } = await asked(t, 'const j = new Job("unit", "alpine", ["true"]); j.docker.enabled = true; await j.run()')
  assert.ok(!argv.join(' ').includes('docker.sock'))
  assert.match(result.log, /docker is not mounted, allowHostMounts is false/)
})

for (const [what, body, message] of [
  ['no image', 'j.image = ""', 'job unit has no image'],
  ['a quantity that is none', 'j.resourceLimits.memory = "lots"', 'cannot read the quantity "lots"'],
  ['a mountPath with options', 'j.mountPath = "/src:ro"', 'cannot mount at "/src:ro"']
]) {
  test(`a job with ${what} is refused before the engine is asked`, async t => {
    const { result, runs } = await asked(t, `const j = new Job("unit", "alpine", ["true"]); ${body}; await j.run()`)
    assert.strictEqual(result.code, 1)
    assert.ok(result.log.includes(message), result.log)
    assert.deepStrictEqual(runs, [])
  })
}

test('what one machine has not is warned of by name', async t => {
  const { result } = await asked(t, `const j = new Job("unit", "alpine", ["true"])
    j.serviceAccount = "s"; j.host.name = "n"; j.imagePullSecrets = ["p"]; j.resourceRequests.cpu = "1"; j.annotations.a = "b"
    j.env.FIELD = { fieldRef: { fieldPath: "metadata.name" } }
    await j.run()`)
  assert.strictEqual(result.code, 0)
  for (const name of ['serviceAccount', 'host', 'imagePullSecrets', 'resourceRequests', 'annotations']) {
    assert.ok(result.log.includes(`job unit: ${name} is not supported on one machine`), name)
  }
  assert.ok(result.log.includes('env from fieldRef is not supported on one machine, not setting environment variable FIELD'))
})

test('a job that fails in its container fails as in Brigade', async t => {
  const { result, made } = await asked(t, 'await new Job("unit", "alpine", ["exit 9"]).run()')
  assert.strictEqual(result.code, 1)
  assert.match(result.log, /job unit\(unit-01build\): Error: Pod unit-01build failed to run to completion/)
  assert.strictEqual(state(made, 'unit').exitCode, 9)
})

test('an engine that cannot start the container is named', async t => {
  const { result } = await asked(t, 'await new Job("unit", "no-such-image", ["true"]).run()')
  assert.strictEqual(result.code, 1)
  assert.ok(result.lines.includes('[unit] Unable to find image'))
  assert.match(result.log, /could not run unit-01build \(exit 125\)/)
})

test('an engine that is not there fails the job', async t => {
  const made = build(t, onPush('await new Job("unit", "alpine", ["true"]).run()'),
    { jobs: 'container', container: { command: ['/no/such/engine'] } })
  const result = await start(made).ended
  assert.strictEqual(result.code, 1)
  assert.match(result.log, /\[unit\] .*\/no\/such\/engine/)
})

test('a job over its time has its container removed', async t => {
  const made = build(t, onPush('const j = new Job("unit", "alpine", ["sleep 600"]); j.timeout = 1000; await j.run()'))
  const stub = engine(made)
  const result = await start(made).ended
  assert.match(result.log, /time limit \(1000 ms\) exceeded/)
  assert.ok(stub.removed().length >= 1)
  assert.deepStrictEqual(stub.removed()[0], ['rm', '-f', 'unit-01build'])
  assert.ok(!stub.has('unit-01build'))
})
