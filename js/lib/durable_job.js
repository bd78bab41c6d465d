'use strict'
// A Job whose result is a checkpoint.

const { Job } = require('./brigadier')
const { definitionOf, keyOf, launchName } = require('./key')
const { packLog, unpackLog } = require('./results')
const { checkTries, FIRST_PAUSE_MS } = require('./retry')
const { settle } = require('./settle')
const { openWorker } = require('./worker')

const OPTIONS = ['key', 'attempts', 'backoff', 'stateless', 'ignoreEnv']
// What Brigade's worker does with a timeout of 0.
const NO_TIMEOUT_MS = 60000
const LET_GO_MS = 500

// Jobs of one name that this build has launched, with the claim of their cache: names collide within a build.
const launched = new Map()

class Result {
  constructor (text) { this.data = text }
  toString () { return this.data }
}

/**
 * `new DurableJob(name, image, options)`, or with a Job's list of tasks before the options. What it needs to run is
 * set on it as on any Job, before `run()`.
 */
class DurableJob extends Job {
  constructor (name, image, tasks, options) {
    const given = Array.isArray(tasks) ? options : Object.assign({}, tasks, options)
    super(name, image, Array.isArray(tasks) ? tasks : [])
    this.durable = Object.assign({ attempts: 1, backoff: FIRST_PAUSE_MS, stateless: false, ignoreEnv: [] }, given)
    for (const option of Object.keys(this.durable)) {
      if (!OPTIONS.includes(option)) throw new Error(`job ${name}: ${option} is not an option of a DurableJob`)
    }
    checkTries(this.durable, `job ${name}`)
    this.kept = null
  }

  /** The job's Result: the recorded one if it succeeded before, else as Job.run gives it. */
  async run () {
    const { key, attempts, backoff, stateless, ignoreEnv } = this.durable
    if (this.storage && this.storage.enabled && !stateless) {
      throw new Error(`job ${this.name} uses storage that it shares with others, and is not durable: the next build ` +
        'would skip it and miss its files. If no other job needs them, say {stateless: true}; else use a plain Job')
    }
    const worker = await openWorker()
    const id = keyOf(worker.about(key, { kind: 'job', name: this.name, definition: definitionOf(this, ignoreEnv) }))
    const log = await settle(worker.store, id, new JobWork(this, worker), { attempts, backoff })
    this.kept = log
    return new Result(log)
  }

  async logs () { return this.kept === null ? super.logs() : this.kept }
}

/** The job as `settle` takes it. */
class JobWork {
  constructor (job, { store, build }) {
    this.job = job
    this.store = store
    this.build = build
    this.name = job.name
    this.timeoutMs = Number(job.timeout) || NO_TIMEOUT_MS
  }

  launch () {
    const before = launched.get(this.name)
    const number = before === undefined ? 1 : before.number + 1
    launched.set(this.name, { number, cache: before && before.cache })
    const job = launchName(this.name, number)
    return { job, pod: `${job}-${this.build.build}` }
  }

  async start (record) {
    const attempt = this.attempt(record.job)
    const watch = this.store.watch(record, () => Boolean(attempt.jr && attempt.jr.pod))
    const running = runOf(attempt)
    this.remember(attempt)
    const done = await Promise.race([running, watch.lost.then(reason => ({ state: 'lost', reason }))])
    watch.end()
    if (done.state === 'lost') {
      letGo(attempt.jr, running)
      return done
    }
    return done.state === 'failed' ? this.judged(record, done) : done
  }

  /** The job under the name of one launch: what is not set on it is the job's own. */
  attempt (name) {
    const { job } = this
    const attempt = Object.create(job)
    const own = { name, jr: null, _podName: '', cacheName: this.name }
    for (const property of Object.keys(own)) {
      Object.defineProperty(attempt, property, { value: own[property], writable: true, enumerable: true })
    }
    const { cache } = launched.get(this.name)
    if (name === this.name || !cache || !job.cache.enabled) return attempt
    // Brigade names a cache after the job: the one of this name, not of the launch's.
    const volume = 'durable-cache'
    attempt.cache = Object.assign({}, job.cache, { enabled: false })
    attempt.volumes = job.volumes.concat({ name: volume, persistentVolumeClaim: { claimName: cache } })
    attempt.volumeMounts = job.volumeMounts.concat({ name: volume, mountPath: job.cache.path })
    return attempt
  }

  /** Let the job speak for its newest launch, and know the claim of its cache. */
  remember (attempt) {
    this.job.jr = attempt.jr
    this.job._podName = attempt._podName
    const known = launched.get(this.name)
    if (attempt.jr && attempt.jr.pvc && !known.cache) known.cache = attempt.jr.pvc.metadata.name
  }

  /** What a failure is by what is left of the job. A pod that runs on would overlap with the next attempt's. */
  async judged (record, done) {
    const left = await this.store.look(record)
    if (left.phase === 'succeeded') return { state: 'succeeded', bytes: await this.collect(record) }
    if (left.phase === 'absent' && left.byCluster) return { state: 'lost', reason: left.reason }
    if (left.phase === 'running' || left.left) await this.stop(record)
    return done
  }

  async collect (record) { return packLog(await this.store.log(record)) }
  stop (record) { return this.store.stop(record) }
  valueOf (bytes) { return unpackLog(bytes) }
}

/** The end of a Job's own run, as `settle` takes it. */
async function runOf (attempt) {
  try {
    return { state: 'succeeded', bytes: packLog(String(await Job.prototype.run.call(attempt))) }
  } catch (error) {
    return { state: 'failed', error }
  }
}

/**
 * Brigade's worker waits for a job whose pod is gone until its time is over, and the build with it. It stops when
 * it sees a pod that has failed, which it keeps in `pod`.
 */
function letGo (jr, running) {
  if (!jr || !('pod' in jr)) return
  const { name } = jr
  const tell = () => { jr.pod = { metadata: { name, namespace: jr.project.kubernetes.namespace }, status: { phase: 'Failed' } } }
  tell()
  const clock = setInterval(tell, LET_GO_MS)
  running.then(() => clearInterval(clock))
}

module.exports = { DurableJob }
