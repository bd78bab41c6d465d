'use strict'
// The worker of one build on one machine: node main.js BUILD_DIR. README.md states the contract.

const fs = require('fs')
const path = require('path')
const Module = require('module')

const VERSION = require('./version')
const { App } = require('./app')
const { ContextLogger, levelNamed } = require('./log')
const { BadBuild, session } = require('./session')

const EXIT_BAD_BUILD = 78
const STOPPED_BY = { SIGTERM: 143, SIGINT: 130 }
const OURS = /^(brigade|brigadier|@brigadecore\/brigadier)(\/out\/\w+)?$/

function main (dir) {
  let build
  try {
    build = session.begin(path.resolve(dir))
    claim(build)
  } catch (error) {
    const why = error instanceof BadBuild ? error.message : `cannot use the build's folder: ${error.code || error}`
    console.log(`[brigade] ${why}`)
    process.exit(EXIT_BAD_BUILD)
  }
  tellTheScript(build)
  stopOnSignals()
  endJobsWithTheWorker()
  answerRequires(build)
  const script = readScript(build)
  if (script) load(build.script, script)
  new ContextLogger([], levelNamed(build.event.logLevel)).log(`brigade-worker version: ${VERSION}`)
  new App(build).start()
}

/** A build has one worker, ever: the folder of its jobs is made by whoever comes first. */
function claim (build) {
  try {
    fs.mkdirSync(path.join(build.dir, 'jobs'), { mode: 0o700 })
  } catch (error) {
    if (error.code !== 'EEXIST') throw error
    throw new BadBuild(`build ${build.id} has had a worker already; a new try needs a new build`)
  }
  fs.mkdirSync(path.join(build.dir, 'hook'), { recursive: true, mode: 0o700 })
  fs.mkdirSync(path.join(build.dir, 'work'), { recursive: true, mode: 0o700 })
}

/** What Brigade's worker has in its environment, which scripts read, and where durable jobs keep their results. */
function tellTheScript (build) {
  const { event, project } = build
  const revision = event.revision || {}
  const inSource = build.source ? path.relative(build.source, build.script) : ''
  const known = {
    BRIGADE_BUILD_ID: event.buildID || build.id,
    BRIGADE_BUILD_NAME: event.workerID || `brigade-worker-${build.id}`,
    BRIGADE_PROJECT_ID: project.id,
    BRIGADE_EVENT_TYPE: event.type,
    BRIGADE_EVENT_PROVIDER: event.provider,
    BRIGADE_COMMIT_ID: revision.commit,
    BRIGADE_COMMIT_REF: revision.ref,
    BRIGADE_REMOTE_URL: event.cloneURL,
    // The same in each build, whatever its folder.
    BRIGADE_SCRIPT: inSource && !inSource.startsWith('..') ? inSource : path.basename(build.script),
    BRIGADE_BUILD_LABELS: JSON.stringify(build.labels),
    BRIGADE_CHECKPOINTS: build.checkpoints,
    BRIGADE_EMITTED: build.emitted
  }
  for (const name of Object.keys(known)) process.env[name] = known[name] || ''
}

function stopOnSignals () {
  for (const signal of Object.keys(STOPPED_BY)) {
    process.on(signal, () => {
      if (session.stopping) return
      session.stopping = true
      const open = Array.from(session.open)
      console.log(`[brigade] ${signal}: stopping ${open.length} job(s)`)
      Promise.all(open.map(run => run.halt('the worker was told to stop')))
        .catch(error => console.log(`[brigade] while stopping: ${error}`))
        .then(() => process.exit(STOPPED_BY[signal]))
    })
  }
}

/** process.exit() in a script and an error in a timer end the worker at once; its jobs end with it. */
function endJobsWithTheWorker () {
  process.on('uncaughtException', error => {
    console.log(error)
    process.exit(1)
  })
  process.on('exit', () => session.open.forEach(run => run.abandon()))
}

/** Brigade's module is ours by each of its names, in the script and in what it requires. */
function answerRequires (build) {
  const resolve = Module._resolveFilename
  Module._resolveFilename = function (request, parent, ...more) {
    if (OURS.test(request)) return require.resolve('./brigadier')
    try {
      return resolve.call(this, request, parent, ...more)
    } catch (error) {
      // A script kept outside of the repository reaches the repository's files with ./ as in Brigade.
      if (!build.source || !/^\.\.?\//.test(request) || !parent || parent.filename !== build.script) throw error
      return resolve.call(this, path.join(build.source, request), parent, ...more)
    }
  }
}

/** The text of the script; null when there is none or it is empty, which to Brigade is the same. */
function readScript (build) {
  try {
    build.script = fs.realpathSync(build.script)
    return fs.readFileSync(build.script, 'utf8').replace(/^\uFEFF/, '') || null
  } catch (error) {
    if (error.code === 'ENOENT') return null
    console.log(`[brigade] cannot read the script: ${error.code}`)
    process.exit(EXIT_BAD_BUILD)
  }
}

/** Run the script as a CommonJS module whatever a package.json beside it says of .js files. */
function load (file, text) {
  const script = new Module(file, null)
  script.filename = file
  script.paths = Module._nodeModulePaths(path.dirname(file))
  Module._cache[file] = script
  script._compile(text, file)
  script.loaded = true
}

// The log outlives whoever reads it; a reader that is gone or a disk that is full costs lines, not the build.
process.stdout.on('error', () => {})
process.stderr.on('error', () => {})
// One stream, in the order in which things were said.
console.error = console.log
console.warn = console.log

if (process.argv.length !== 3) {
  console.log('usage: node main.js BUILD_DIR')
  process.exit(64)
}
main(process.argv[2])
