'use strict'
// One run of one job: what is checked, prepared, started, watched and written down.

const fs = require('fs')
const path = require('path')

const { JobLog } = require('./log')
const { copyTree, tailOf, writeJson } = require('./files')
const { environmentOf } = require('./environment')
const container = require('./runner_container')
const host = require('./runner_host')

// What a Result holds at most: the size at which a kubelet starts a new log file.
const LONGEST_RESULT = 10 * 1024 * 1024
// A timer with more than this would fire at once.
const LONGEST_TIMEOUT_MS = 2 ** 31 - 1
// A process that left the job's group may hold its output open for ever; the job has ended all the same.
const OUTPUT_GRACE_MS = 2000

const PLACES = { cache: '/mnt/brigade/cache', storage: '/mnt/brigade/share' }

class Result {
  constructor (text) { this.data = text }
  toString () { return this.data }
}

/** The shell file that a job's tasks make, or null when the image is to run as it is. */
function scriptOf (shell, tasks, prelude) {
  if (tasks.length === 0) return null
  const strict = { '/bin/sh': 'set -e\n', '/bin/bash': 'set -eo pipefail\n' }[shell] || ''
  return `#!${shell}\n\n${strict}${prelude}\n${tasks.join('\n')}\n`
}

class JobRun {
  /** Throws when the project or the machine does not allow the job; starts nothing. */
  constructor (job, session) {
    if (!session.event) throw new Error(`job ${job.name} was run before an event was fired: run it in a handler`)
    this.job = job
    this.session = session
    this.build = session.build
    this.project = session.project
    this.event = session.event
    this.podName = `${job.name}-${session.event.buildID}`
    this.shell = job.shell || '/bin/sh'
    this.runner = this.build.jobs === 'host' ? host : container
    this.env = environmentOf(job, session)
    this.check()
    this.runner.check(this)
    this.state = {
      name: job.name, image: job.image, phase: 'Pending', started: null, ended: null, exitCode: null, reason: null
    }
    this.process = null
    this.ending = null
    this.settled = new Promise(resolve => { this.settle = resolve })
  }

  check () {
    const { job, project } = this
    for (const list of ['tasks', 'args', 'volumes', 'volumeMounts']) {
      if (!Array.isArray(job[list])) throw new Error(`job ${job.name}: ${list} must be a list`)
    }
    if (job.privileged && !project.allowPrivilegedJobs) {
      throw new Error(`allowPrivilegedJobs is false in this project, not running ${job.name} privileged`)
    }
    for (const volume of job.volumes) {
      if (volume.hostPath && !project.allowHostMounts) {
        throw new Error(`allowHostMounts is false in this project, not mounting ${volume.hostPath.path}`)
      }
    }
    for (const mount of job.volumeMounts) {
      if (job.volumes.some(volume => volume.name === mount.name)) continue
      throw new Error(`volume ${mount.name} referenced in volume mount is not defined`)
    }
  }

  /** BUILD_DIR/<kind>/<job>: jobs share no files but those in storage and cache. */
  folder (kind) { return path.join(this.build.dir, kind, this.job.name) }
  /** Where the job expects its cache or storage. */
  placeOf (kind) { return this.job[kind].path || PLACES[kind] }
  get args () { return this.job.args.map(String) }
  get logFile () { return path.join(this.build.dir, 'jobs', `${this.job.name}.log`) }
  get timeoutMs () { return Math.min(Number(this.job.timeout) || 60000, LONGEST_TIMEOUT_MS) }

  logs () { return tailOf(this.logFile, LONGEST_RESULT) }

  async run () {
    // A worker that is being stopped starts nothing and answers nobody.
    if (this.session.stopping) return new Promise(() => {})
    this.claim()
    this.session.open.add(this)
    this.session.logger.log(`Creating pod ${this.podName}`)
    this.session.logger.log(`Timeout set at ${this.timeoutMs} milliseconds`)
    const clock = setTimeout(() => this.stop(`time limit (${this.timeoutMs} ms) exceeded`), this.timeoutMs)
    try {
      this.write({ phase: 'Pending', started: new Date().toISOString() })
      await this.prepare()
      if (!this.ending) await this.watch()
      if (this.ending) await this.ending
      const result = this.outcome()
      return this.session.stopping ? new Promise(() => {}) : result
    } catch (error) {
      this.fail(error)
      // The script must not go on to its next job, nor call this a failure.
      if (this.session.stopping) return new Promise(() => {})
      throw error
    } finally {
      clearTimeout(clock)
      this.session.open.delete(this)
      this.settle()
    }
  }

  /** The folder of its script is the job's claim on its name: two jobs of one name collide, as in Brigade. */
  claim () {
    try {
      fs.mkdirSync(this.folder('hook'))
    } catch (error) {
      if (error.code === 'EEXIST') throw new Error(`secrets "${this.podName}" already exists`)
      throw error
    }
  }

  async prepare () {
    const work = this.folder('work')
    if (this.job.useSource && this.build.source) {
      await copyTree(this.build.source, work, this.build.dir, this.runner.modeInJob)
    } else {
      await fs.promises.mkdir(work, { recursive: true })
    }
    const script = scriptOf(this.shell, this.job.tasks, this.runner.prelude(this))
    const file = path.join(this.folder('hook'), 'main.sh')
    if (script !== null) fs.writeFileSync(file, script, { mode: 0o644 })
    this.script = script === null ? null : file
    this.runner.prepare(this)
  }

  /** Start the process and wait until it has ended and its output has been read. */
  watch () {
    return new Promise((resolve, reject) => {
      const log = new JobLog(this.logFile, this.job.name)
      const child = this.runner.start(this)
      this.process = child
      this.write(Object.assign({ phase: 'Running' }, child.known))
      this.session.logger.log(`${this.podName} phase Running`)
      child.stdout.on('data', piece => log.write(piece))
      child.on('error', error => { log.close(); reject(error) })
      let grace
      child.on('exit', (code, signal) => {
        this.exitCode = code
        this.exitSignal = signal
        child.cleanUp()
        grace = setTimeout(() => child.stdout.destroy(), OUTPUT_GRACE_MS)
      })
      child.on('close', () => {
        clearTimeout(grace)
        log.close()
        resolve()
      })
    })
  }

  outcome () {
    if (this.reason) throw new Error(this.reason)
    if (this.exitCode !== 0) throw new Error(`Pod ${this.podName} failed to run to completion`)
    this.write({ phase: 'Succeeded', ended: new Date().toISOString(), exitCode: 0 })
    this.session.logger.log(`${this.podName} phase Succeeded`)
    return new Result(this.logs())
  }

  fail (error) {
    const exitCode = this.exitCode === undefined ? null : this.exitCode
    const how = this.exitSignal ? `${error.message} (${this.exitSignal})` : error.message
    this.write({ phase: 'Failed', ended: new Date().toISOString(), exitCode, reason: how })
    const code = exitCode === null ? '' : ` (exit ${exitCode})`
    this.session.logger.log(`${this.podName} phase Failed${code}`)
    if (this.process) this.process.explain(exitCode)
  }

  /** Stop the job for `reason`; resolves when its processes are gone. The first reason counts, and an end more. */
  stop (reason) {
    if (this.ending) return this.ending
    if (this.exitCode !== undefined) return Promise.resolve()
    this.reason = reason
    this.ending = this.process ? this.process.stop() : Promise.resolve()
    return this.ending
  }

  /** stop(), and if the job had started, wait until its output and its end are on record as well. */
  async halt (reason) {
    const started = this.process !== null
    await this.stop(reason)
    if (started) await this.settled
  }

  /** Last words in a process that is about to end. Its watcher ends the job: the worker is gone. */
  abandon () {
    this.write({ phase: 'Failed', ended: new Date().toISOString(), reason: this.reason || 'the worker ended' })
  }

  /** Others read this file; one that cannot be written costs them the view of this job, not the job. */
  write (changes) {
    Object.assign(this.state, changes)
    try {
      writeJson(path.join(this.build.dir, 'jobs', `${this.job.name}.json`), this.state)
    } catch (error) {
      this.session.logger.warn(`cannot write the state of job ${this.job.name} (${error.code})`)
    }
  }
}

module.exports = { JobRun, Result }
