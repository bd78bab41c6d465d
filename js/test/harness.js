'use strict'
// Scripts that are run as a worker would run them, each in a process of its own.

const fs = require('fs')
const os = require('os')
const path = require('path')
const { spawn } = require('child_process')

// Another Node than the one that runs the tests: for trying the oldest and the newest that are supported.
const NODE = process.env.DURABLE_NODE || process.execPath
const PACKAGE = path.join(__dirname, '..')
const DEADLINE_MS = 60000

/** A new folder for a test, removed when it ends. */
function folder (t) {
  const dir = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'durable-')))
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** The environment of a worker of one machine whose checkpoints are in `dir`; `changes` go over it. */
function machine (dir, changes = {}) {
  return {
    PATH: process.env.PATH,
    TMPDIR: os.tmpdir(),
    BRIGADE_BUILD_ID: '01build',
    BRIGADE_PROJECT_ID: 'brigade-4a2b',
    BRIGADE_COMMIT_ID: 'c0ffee',
    BRIGADE_EVENT_TYPE: 'push',
    BRIGADE_SCRIPT: 'brigade.js',
    BRIGADE_CHECKPOINTS: path.join(dir, 'checkpoints'),
    BRIGADE_BUILD_LABELS: JSON.stringify({
      'bridge.brigade.sh/run': 'widgets-1',
      'bridge.brigade.sh/epoch': '1',
      'bridge.brigade.sh/step': 'test'
    }),
    ...changes
  }
}

/**
 * Run `body`, the inside of an async function in which the package's exports, `note(text)` (a line in `dir`/notes)
 * and `until(found)` are known. The child has `ended`, a promise of {code, log, notes, result}: what `body` returned.
 */
function start (dir, body, env = machine(dir)) {
  const file = path.join(dir, `script-${Math.random().toString(36).slice(2)}.js`)
  fs.writeFileSync(file, `'use strict'
const fs = require('fs')
const { checkpoint, retry, emit } = require(${JSON.stringify(PACKAGE)})
const NOTES = ${JSON.stringify(path.join(dir, 'notes'))}
const note = text => fs.appendFileSync(NOTES, text + '\\n')
const until = async found => { while (!found()) await new Promise(resolve => setTimeout(resolve, 10)) }
async function body () { ${body} }
body().then(
  result => { fs.writeFileSync(__filename + '.result', JSON.stringify({ result })) },
  error => { console.log(String(error)); process.exitCode = 1 }
)
`)
  const child = spawn(NODE, [file], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let log = ''
  child.stdout.on('data', piece => { log += piece })
  child.stderr.on('data', piece => { log += piece })
  const clock = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS)
  child.ended = new Promise(resolve => child.on('close', (code, signal) => {
    clearTimeout(clock)
    const kept = `${file}.result`
    const { result } = fs.existsSync(kept) ? JSON.parse(fs.readFileSync(kept, 'utf8')) : {}
    resolve({ code, signal, log, result, notes: notes(dir) })
  }))
  return child
}

function run (dir, body, env) { return start(dir, body, env).ended }

function notes (dir) {
  const file = path.join(dir, 'notes')
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8').split('\n').filter(Boolean) : []
}

/** Wait until `found()` is truthy and give it. */
async function until (found, what) {
  for (const end = Date.now() + DEADLINE_MS; Date.now() < end;) {
    const value = found()
    if (value) return value
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  throw new Error(`timed out waiting for ${what}`)
}

module.exports = { NODE, PACKAGE, folder, machine, start, run, notes, until }
