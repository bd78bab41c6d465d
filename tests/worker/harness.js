'use strict'
// Builds in folders of their own, and the worker run on them as the supervisor runs it.

const assert = require('assert')
const fs = require('fs')
const os = require('os')
const path = require('path')
const { spawn } = require('child_process')

const MAIN = path.join(__dirname, '..', '..', 'bridge', 'local', 'worker', 'main.js')
// Another Node than the one that runs the tests: for trying the oldest that is supported.
const NODE = process.env.BRIDGE_WORKER_NODE || process.execPath
const DEADLINE_MS = 60000

/** A new folder for a test, removed when it ends. */
function folder (t) {
  const dir = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'worker-')))
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** Write `files`, a map of relative paths to texts, below `dir`. */
function put (dir, files) {
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(dir, name)), { recursive: true })
    fs.writeFileSync(path.join(dir, name), text)
  }
  return dir
}

/** A build whose brigade.js is `script` (null: there is none); `changes` go over build.json. */
function build (t, script, changes = {}) {
  const root = folder(t)
  const dir = path.join(root, 'build')
  const project = put(path.join(root, 'project'), script === null ? {} : { 'brigade.js': script })
  const { project: ofProject, event, ...others } = changes
  const told = {
    id: '01build',
    number: 1,
    project: {
      id: 'brigade-4a2b',
      name: 'acme/widgets',
      repo: { name: 'github.com/acme/widgets', cloneURL: 'https://git.invalid/acme/widgets.git' },
      secrets: { token: 'secret-of-the-project' },
      ...ofProject
    },
    event: {
      buildID: '01build',
      workerID: 'brigade-worker-01build',
      type: 'push',
      provider: 'github',
      revision: { commit: 'c0ffee', ref: 'refs/heads/main' },
      payload: '{"ref":"refs/heads/main"}',
      cloneURL: '',
      logLevel: 'log',
      cause: null,
      ...event
    },
    script: path.join(project, 'brigade.js'),
    source: '',
    jobs: 'host',
    labels: { 'bridge.brigade.sh/run': 'r-1' },
    ...others
  }
  put(dir, { 'build.json': JSON.stringify(told) })
  return { root, dir, project, told }
}

/** Start the worker; the returned child has `output()`, and `ended`, a promise of {code, signal, log}. */
function start (made, env = {}) {
  const child = spawn(NODE, [MAIN, made.dir], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, ...env }
  })
  let out = ''
  let err = ''
  child.stdout.on('data', piece => { out += piece })
  child.stderr.on('data', piece => { err += piece })
  child.output = () => out
  // A worker that hangs fails its own test, with its log, and not the whole run.
  const clock = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS)
  child.ended = new Promise(resolve => {
    child.on('close', (code, signal) => {
      clearTimeout(clock)
      resolve({ code, signal, log: out, err, lines: out.split('\n') })
    })
  })
  return child
}

/** Run a brigade.js to its end. */
function run (t, script, changes) {
  return start(build(t, script, changes)).ended
}

/** The body of a handler for the event, with everything that scripts use in scope. */
function onPush (body) {
  return `const { events, Job, Group } = require("brigadier")
events.on("push", async (e, p) => { ${body} })`
}

/** Wait until `found()` is truthy and return it. */
async function until (found, what) {
  for (const end = Date.now() + DEADLINE_MS; Date.now() < end;) {
    const value = found()
    if (value) return value
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  assert.fail(`timed out waiting for ${what}`)
}

/** The state file of a job, or null while there is none. */
function state (made, job) {
  try {
    return JSON.parse(fs.readFileSync(path.join(made.dir, 'jobs', `${job}.json`), 'utf8'))
  } catch (error) {
    if (error.code === 'ENOENT') return null
    throw error
  }
}

/** True while the process runs; one that ended and waits to be reaped does not. */
function alive (pid) {
  try {
    process.kill(pid, 0)
  } catch (error) {
    return false
  }
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2)[0] !== 'Z'
  } catch (error) {
    return fs.existsSync('/proc/self') === false
  }
}

/** A container engine that runs "containers" as processes apart from its client, and notes what it is asked. */
function engine (made) {
  const notes = path.join(made.root, 'engine')
  fs.mkdirSync(notes)
  made.told.jobs = 'container'
  made.told.container = { command: [process.execPath, path.join(__dirname, 'engine.js'), notes] }
  put(made.dir, { 'build.json': JSON.stringify(made.told) })
  const calls = () => {
    const file = path.join(notes, 'calls')
    if (!fs.existsSync(file)) return []
    return fs.readFileSync(file, 'utf8').split('\n').filter(Boolean).map(line => JSON.parse(line))
  }
  return {
    calls,
    runs: () => calls().filter(call => call.argv[0] === 'run').map(call => call.argv),
    removed: () => calls().filter(call => call.argv[0] === 'rm').map(call => call.argv),
    pid: name => Number(fs.readFileSync(path.join(notes, `${name}.pid`), 'utf8')),
    has: name => fs.existsSync(path.join(notes, `${name}.pid`))
  }
}

/** The values that follow `flag` in an argument list. */
function after (argv, flag) {
  return argv.filter((_, at) => argv[at - 1] === flag)
}

module.exports = { NODE, MAIN, folder, put, build, start, run, onPush, until, state, alive, engine, after }
