'use strict'
// brigade-durable 0.1.0 in one file (Apache-2.0), made by js/bundle.js. Do not change it: make it anew.
/* eslint-disable */

const outside = require
const modules = {}
const loaded = {}

function load (file) {
  if (!loaded[file]) {
    loaded[file] = { exports: {} }
    modules[file](loaded[file], loaded[file].exports, name =>
      name[0] === '.' ? load('lib/' + name.replace(/^(\.\/)(lib\/)?/, '') + '.js') : outside(name))
  }
  return loaded[file].exports
}

modules["index.js"] = (module, exports, require) => {
const { checkpoint } = require('./lib/checkpoint')
const { emit } = require('./lib/emit')
const { retry } = require('./lib/retry')

module.exports = {
  checkpoint,
  emit,
  retry,
  // Only a worker's own Job can be extended; the rest works without.
  get DurableJob () { return require('./lib/durable_job').DurableJob }
}
}

modules["lib/api.js"] = (module, exports, require) => {
// The few calls of the API server that a worker makes, with the token of its ServiceAccount.

const fs = require('fs')
const https = require('https')
const path = require('path')

const { pause, pauseAfter } = require('./retry')

const ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'
const REQUEST_TIMEOUT_MS = 30 * 1000
// An API server that is being replaced is back within a minute or two.
const PATIENCE_MS = 3 * 60 * 1000
const FIRST_PAUSE_MS = 500
const LONGEST_MESSAGE = 300
const LONGEST_LOG = 8 * 1024 * 1024

/** The API server answered with something else than what was asked for; `status` is the HTTP status. */
class ApiError extends Error {
  constructor (act, status, message) {
    super(`cannot ${act}: ${status} ${String(message).slice(0, LONGEST_MESSAGE)}`)
    this.status = status
  }
}

class Api {
  /** `env` as Kubernetes sets it in each pod; BRIGADE_SERVICE_ACCOUNT_FOLDER says where else token and CA are. */
  constructor (env) {
    this.folder = env.BRIGADE_SERVICE_ACCOUNT_FOLDER || ACCOUNT
    this.host = env.KUBERNETES_SERVICE_HOST
    this.port = env.KUBERNETES_SERVICE_PORT_HTTPS || env.KUBERNETES_SERVICE_PORT || '443'
    this.agent = new https.Agent({ ca: this.read('ca.crt'), keepAlive: true, maxSockets: 8 })
    this.namespace = env.BRIGADE_PROJECT_NAMESPACE || this.read('namespace').trim()
  }

  /** The object, or null if there is none; `age` of a pod is measured by the API server's own clock. */
  async get (kind, name) {
    const answer = await this.ask('GET', this.path(kind, name), `read ${kind} ${name}`, { besides: [404] })
    if (answer.status === 404) return null
    return Object.assign(JSON.parse(answer.text), { seenAt: Date.parse(answer.date) || Date.now() })
  }

  /** The object as it is stored, or null if one of its name is there (perhaps ours, if an answer was lost). */
  async create (kind, body) {
    const act = `create ${kind} ${body.metadata.name}`
    const answer = await this.ask('POST', this.path(kind), act, { body, besides: [409] })
    return answer.status === 409 ? null : JSON.parse(answer.text)
  }

  /** The object as it is stored, or null if it was changed or deleted since its resourceVersion was read. */
  async replace (kind, body) {
    const { name } = body.metadata
    const answer = await this.ask('PUT', this.path(kind, name), `update ${kind} ${name}`, { body, besides: [404, 409] })
    return answer.status === 200 ? JSON.parse(answer.text) : null
  }

  /** Ask for the end of the object with this uid; gone already is fine. */
  async remove (kind, name, uid) {
    const body = { preconditions: { uid } }
    await this.ask('DELETE', this.path(kind, name), `delete ${kind} ${name}`, { body, besides: [404, 409] })
  }

  /** The end of what a container said. */
  async log (pod, container) {
    const where = `${this.path('pods', pod)}/log?container=${container}`
    return (await this.ask('GET', where, `read the log of pod ${pod}`)).text
  }

  path (kind, name) {
    const all = `/api/v1/namespaces/${this.namespace}/${kind}`
    return name === undefined ? all : `${all}/${name}`
  }

  /** One call, again while the API server is away or busy. Other answers than a success or `besides` are errors. */
  async ask (method, where, act, { body, besides = [] } = {}) {
    const end = Date.now() + PATIENCE_MS
    for (let failures = 1; ; failures += 1) {
      let problem
      try {
        const answer = await this.once(method, where, body)
        if (answer.status < 300 || besides.includes(answer.status)) return answer
        problem = new ApiError(act, answer.status, messageOf(answer) + hintFor(answer.status))
        if (answer.status < 500 && answer.status !== 429) throw problem
      } catch (error) {
        if (error === problem) throw error
        problem = new ApiError(act, 'no answer', error.message)
      }
      if (Date.now() > end) throw problem
      await pause(pauseAfter(Math.min(failures, 5), FIRST_PAUSE_MS))
    }
  }

  once (method, where, body) {
    const text = body === undefined ? undefined : JSON.stringify(body)
    const headers = { authorization: `Bearer ${this.read('token').trim()}`, accept: 'application/json, */*' }
    if (text !== undefined) {
      headers['content-type'] = 'application/json'
      headers['content-length'] = Buffer.byteLength(text)
    }
    const { host, port, agent } = this
    return new Promise((resolve, reject) => {
      const request = https.request({ method, host, port, path: where, headers, agent }, response => {
        collected(response).then(
          bytes => resolve({ status: response.statusCode, date: response.headers.date, text: bytes.toString() }),
          reject)
      })
      request.setTimeout(REQUEST_TIMEOUT_MS, () => request.destroy(new Error('no answer in time')))
      request.on('error', reject)
      request.end(text)
    })
  }

  /** Read anew each time: kubelet replaces the token before it expires. */
  read (name) { return fs.readFileSync(path.join(this.folder, name), 'utf8') }
}

/** The last LONGEST_LOG bytes of a response: a log may be larger than this process. */
function collected (response) {
  return new Promise((resolve, reject) => {
    let pieces = []
    let length = 0
    response.on('data', piece => {
      pieces.push(piece)
      length += piece.length
      if (length < 2 * LONGEST_LOG) return
      pieces = [Buffer.concat(pieces).slice(-LONGEST_LOG)]
      length = LONGEST_LOG
    })
    response.on('aborted', () => reject(new Error('the answer was cut off')))
    response.on('error', reject)
    response.on('end', () => resolve(Buffer.concat(pieces)))
  })
}

function messageOf ({ text }) {
  try {
    return JSON.parse(text).message || ''
  } catch (error) {
    return text
  }
}

function hintFor (status) {
  return status === 403 ? ' (README.md lists the rights that the worker\'s ServiceAccount needs)' : ''
}

module.exports = { Api, ApiError }
}

modules["lib/brigadier.js"] = (module, exports, require) => {
// The script API of the worker that runs this script, under whichever of its names.

const NAMES = ['@brigadecore/brigadier', 'brigadier', 'brigade']

for (const name of NAMES) {
  const found = tried(name)
  // The package of that name on npm declares Job; only a worker's own can run one.
  if (found && found.Job && typeof found.Job.prototype.run === 'function') module.exports = found
}
if (!module.exports.Job) {
  throw new Error('there is no Job that can be run: require this package in a brigade.js that a Brigade v1 worker runs')
}

function tried (name) {
  try {
    return require(name)
  } catch (error) {
    if (error.code === 'MODULE_NOT_FOUND') return null
    throw error
  }
}
}

modules["lib/checkpoint.js"] = (module, exports, require) => {
// What is not a job: a function whose result is kept.

const { keyOf } = require('./key')
const { packValue, unpackValue } = require('./results')
const { checkTries, FIRST_PAUSE_MS } = require('./retry')
const { settle } = require('./settle')
const { openWorker } = require('./worker')

/**
 * Give what `fn()` gives, and keep it: the next build that belongs to the same gets what was kept, and does not call
 * `fn`. The result must be JSON. A function whose text has changed is called again, what it uses is not looked at.
 * It is called again as well when the worker died in it, so it must be harmless twice.
 */
async function checkpoint (name, fn, { key, attempts = 1, backoff = FIRST_PAUSE_MS } = {}) {
  const what = `checkpoint ${JSON.stringify(name)}`
  if (typeof name !== 'string' || name === '') throw new Error('checkpoint: the first argument must be its name')
  if (typeof fn !== 'function') throw new Error(`${what}: the second argument must be a function`)
  checkTries({ attempts, backoff }, what)
  const worker = await openWorker()
  const id = keyOf(worker.about(key, { kind: 'value', name, definition: fn.toString() }))
  return settle(worker.store, id, {
    name: what,
    launch: () => ({}),
    start: async () => {
      try {
        return { state: 'succeeded', bytes: packValue(await fn()) }
      } catch (error) {
        return { state: 'failed', error }
      }
    },
    valueOf: unpackValue
  }, { attempts, backoff })
}

module.exports = { checkpoint }
}

modules["lib/durable_job.js"] = (module, exports, require) => {
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
}

modules["lib/emit.js"] = (module, exports, require) => {
// The next event of the project, once.

const { keyOf } = require('./key')
const { openWorker } = require('./worker')

// Brigade's worker fires these itself.
const RESERVED = ['error', 'after', 'ping']

// What this build has emitted, with its payload, by id.
const emitted = new Map()

/**
 * Have Brigade build `event` of this project, with this build's revision, and give {id, duplicate} once that is
 * stored; its end is not waited for. The id follows from what this build belongs to, the event and `name`, so
 * another build of the same emits nothing twice, whatever the payload. Events of one type from one script need names.
 */
async function emit (event, payload = '', { key, name = '' } = {}) {
  if (typeof event !== 'string' || event === '') throw new Error('emit: the first argument must be the event\'s type')
  if (RESERVED.includes(event)) throw new Error(`emit: ${event} is an event of Brigade's worker itself`)
  const text = typeof payload === 'string' ? payload : JSON.stringify(payload)
  if (text === undefined) throw new Error(`emit ${event}: the payload is no JSON`)
  const worker = await openWorker()
  const id = keyOf(worker.about(key, { kind: 'event', name: event, definition: name }))
  if (emitted.has(id) && emitted.get(id) !== text) {
    throw new Error(`emit ${event}: it was emitted with another payload; give each its own name: {name: …}`)
  }
  emitted.set(id, text)
  const duplicate = !await worker.store.startBuild(id, event, text)
  console.log(`[durable] event ${event}: build ${id}${duplicate ? ' was started before' : ''}`)
  return { id, duplicate }
}

module.exports = { emit }
}

modules["lib/key.js"] = (module, exports, require) => {
// What a checkpoint's key is made of. Nothing here reads a file, a clock or the environment.

const crypto = require('crypto')

const RUN = 'bridge.brigade.sh/run'
const EPOCH = 'bridge.brigade.sh/epoch'
const STEP = 'bridge.brigade.sh/step'
const NO_RUN = 'none'

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'
const HASH_LENGTH = 26
const LONGEST_JOB_NAME = 36

/**
 * What the results of a build belong to, so that another build which belongs to the same takes them over: `key` if
 * the script gives one, else bridge's run, epoch and step, else the commit and the event. A build that has neither
 * is on its own: a branch's name says nothing about what was built.
 */
function scopeOf ({ labels = {}, commit, event, build }, key) {
  if (key !== undefined) return { key: String(key) }
  if (labels[RUN] && labels[RUN] !== NO_RUN) {
    return { run: labels[RUN], epoch: labels[EPOCH] || '1', step: labels[STEP] || '' }
  }
  // A pull request's commit may be pushed later: what a fork's build says must not count for the branch.
  if (commit) return { commit, event }
  return { build }
}

/** True when no other build can take over what a build with this scope finished. */
function isAlone (scope) {
  return scope.build !== undefined
}

/**
 * The name of a checkpoint: 26 characters that Kubernetes takes everywhere. `kind` is job, value or event;
 * `definition` is whatever must be the same for a result to count.
 */
function keyOf ({ project, scope, script, kind, name, definition }) {
  return hashed([project, scope, script, kind, name, definition])
}

/**
 * All that decides what a job does and with what, as a plain value. What it may use (memory, time) is left out, and
 * so are the variables in `ignored`, since tokens and times differ in every build.
 */
function definitionOf (job, ignored = []) {
  const env = {}
  for (const name of Object.keys(job.env || {})) {
    if (!ignored.includes(name)) env[name] = job.env[name]
  }
  const host = job.host || {}
  return {
    image: job.image,
    tasks: job.tasks,
    args: job.args,
    shell: job.shell,
    env,
    mountPath: job.mountPath,
    useSource: job.useSource,
    privileged: job.privileged,
    serviceAccount: job.serviceAccount,
    docker: job.docker && job.docker.enabled,
    cache: job.cache && job.cache.enabled && job.cache.path,
    storage: job.storage && job.storage.enabled && job.storage.path,
    volumes: job.volumes,
    volumeMounts: job.volumeMounts,
    host: { os: host.os, name: host.name, nodeSelector: pairsOf(host.nodeSelector) }
  }
}

/**
 * The name of the job that makes launch `number` of job `name` within one build: job names collide within a build,
 * and a name has at most 36 characters. A name that had to be cut carries a hash of the whole.
 */
function launchName (name, number) {
  if (number === 1) return name
  const suffix = `-try${number}`
  if (name.length + suffix.length <= LONGEST_JOB_NAME) return name + suffix
  const mark = `-${hashed([name]).slice(0, 6)}`
  const room = LONGEST_JOB_NAME - suffix.length - mark.length
  return name.slice(0, room).replace(/[-.]+$/, '') + mark + suffix
}

/** 26 characters of lower-case Crockford base 32, of the SHA-256 of `value` as JSON with its keys in order. */
function hashed (value) {
  const digest = crypto.createHash('sha256').update(JSON.stringify(ordered(value))).digest('hex')
  let number = BigInt(`0x${digest}`)
  let text = ''
  for (let at = 0; at < HASH_LENGTH; at += 1) {
    text += ALPHABET[Number(number % 32n)]
    number /= 32n
  }
  return text
}

function ordered (value) {
  if (Array.isArray(value)) return value.map(ordered)
  if (value === null || typeof value !== 'object') return value
  const sorted = {}
  for (const name of Object.keys(value).sort()) sorted[name] = ordered(value[name])
  return sorted
}

function pairsOf (selector) {
  if (!selector) return {}
  if (typeof selector.entries !== 'function') return selector
  const pairs = {}
  for (const [name, value] of selector.entries()) pairs[name] = value
  return pairs
}

module.exports = { RUN, EPOCH, STEP, scopeOf, isAlone, keyOf, definitionOf, launchName, hashed }
}

modules["lib/kubernetes.js"] = (module, exports, require) => {
// The store of a cluster: a Secret for each checkpoint, job pods as what is running, worker pods as holders.

const { pause } = require('./retry')

const TYPE = 'bridge.brigade.sh/checkpoint'
const LABEL = 'bridge.brigade.sh/checkpoint'
const STATE = 'bridge.brigade.sh/state'
const NAME = 'bridge.brigade.sh/name'
const EMITTED_BY = 'bridge.brigade.sh/emitted-by'
const CONTAINER = 'brigaderun'

const POLL_MS = 2000
// How long after its grace a pod that is being deleted may still be there, before its node is taken for dead.
const BEYOND_GRACE_MS = 60 * 1000
const DEFAULT_GRACE_SECONDS = 30
const LONGEST_NAME = 200
const ENDS_BY_CLUSTER = ['Evicted', 'Preempting', 'Shutdown', 'NodeShutdown', 'NodeLost', 'NodeAffinity', 'Terminated']
const CANNOT_START = ['ErrImagePull', 'ImagePullBackOff', 'InvalidImageName']

class KubernetesStore {
  /** `worker` is this process's own pod, `owner` its build's Secret: checkpoints go when their builds go. */
  constructor (api, build, worker, owner, pollMs = POLL_MS) {
    this.api = api
    this.build = build
    this.project = build.project
    this.holder = { build: build.build, worker: worker.metadata.name, uid: worker.metadata.uid }
    this.owner = owner && {
      apiVersion: 'v1', kind: 'Secret', name: owner.metadata.name, uid: owner.metadata.uid
    }
    this.pollMs = pollMs
    this.dying = new Map()
  }

  async read (key) {
    const secret = await this.api.get('secrets', nameOf(key))
    return secret === null ? null : entryOf(secret)
  }

  async create (key, record) {
    const made = await this.api.create('secrets', this.secret(key, record, null, null))
    return made === null ? this.ours(key, record) : entryOf(made)
  }

  async replace (key, entry, record, result = null) {
    const written = await this.api.replace('secrets', this.secret(key, record, result, entry))
    return written === null ? this.ours(key, record) : entryOf(written)
  }

  /** A write that was refused may be our own, whose answer was lost. */
  async ours (key, record) {
    const entry = await this.read(key)
    return entry !== null && JSON.stringify(entry.record) === JSON.stringify(record) ? entry : null
  }

  /**
   * What there is of a job: absent, running (or about to), succeeded or failed. A pod that the cluster ended, or that
   * died with its node, is absent, `byCluster`: that says nothing about the job. `left`: it has failed, but its pod
   * is there.
   */
  async look (record) {
    if (record.pod === undefined) return { phase: 'absent' }
    const pod = await this.api.get('pods', record.pod)
    if (pod === null) return { phase: 'absent', reason: `pod ${record.pod} was deleted` }
    const { phase, reason, message } = pod.status
    if (phase === 'Succeeded') return { phase: 'succeeded' }
    if (phase === 'Failed' && endedByCluster(pod)) {
      return { phase: 'absent', byCluster: true, reason: `pod ${record.pod} was ended: ${reason || message}` }
    }
    if (phase === 'Failed') return { phase: 'failed', reason: `Pod ${record.pod} failed to run to completion` }
    if (this.isOverdue(pod)) {
      return { phase: 'absent', byCluster: true, reason: `pod ${record.pod} does not end: its node seems dead` }
    }
    const waiting = waitingOf(pod)
    if (phase === 'Pending' && waiting && CANNOT_START.includes(waiting.reason)) {
      return { phase: 'failed', reason: `Pod ${record.pod}: ${waiting.message || waiting.reason}`, left: true }
    }
    return { phase: 'running', ageMs: pod.seenAt - Date.parse(pod.metadata.creationTimestamp) }
  }

  /** A worker's pod is never started again: one that ended, or is another, is not the holder. */
  async isAlive (holder) {
    const pod = await this.api.get('pods', holder.worker)
    if (pod === null || pod.metadata.uid !== holder.uid) return false
    return !['Succeeded', 'Failed'].includes(pod.status.phase) && !this.isOverdue(pod)
  }

  /** The log of a job that has ended. A node that is gone takes its logs with it, not the job's success. */
  async log (record) {
    try {
      return await this.api.log(record.pod, CONTAINER)
    } catch (error) {
      return `... the log of this job could not be read (${error.message})\n`
    }
  }

  /** Have a job's pod deleted, and wait until it is gone or its node seems dead. */
  async stop (record) {
    const pod = await this.api.get('pods', record.pod)
    if (pod === null) return
    await this.api.remove('pods', record.pod, pod.metadata.uid)
    for (;;) {
      const left = await this.api.get('pods', record.pod)
      if (left === null || left.metadata.uid !== pod.metadata.uid || this.isOverdue(left)) return
      await pause(this.pollMs / 4)
    }
  }

  /**
   * Brigade does not notice that a job's pod was deleted. The promise `lost` resolves, to the reason, when a pod that
   * was there is not; `end()` ends the looking. `sawIt()` says that somebody else has seen it there.
   */
  watch (record, sawIt) {
    let ended = false
    const looking = async resolve => {
      let wasThere = false
      while (!ended) {
        await pause(this.pollMs)
        if (ended) return
        try {
          wasThere = wasThere || sawIt()
          const { phase, reason } = await this.look(record)
          if (phase === 'absent' && wasThere) return resolve(reason)
          wasThere = wasThere || phase !== 'absent'
        } catch (error) {
          // Who may not look learns nothing; the job goes on as it does in Brigade.
        }
      }
    }
    return { lost: new Promise(resolve => { looking(resolve) }), end: () => { ended = true } }
  }

  /** Ask Brigade for a build as its gateways do. False if there is one of this id. */
  async startBuild (id, event, payload) {
    const { project, provider, commit, ref, cloneURL } = this.build
    const name = `brigade-worker-${id}`
    const data = {
      build_id: name,
      build_name: name,
      project_id: project,
      event_type: event,
      event_provider: provider,
      commit_id: commit,
      commit_ref: ref,
      clone_url: cloneURL,
      short_title: '',
      long_title: '',
      // With a higher level a worker does not say that it found no handler.
      log_level: 'log',
      script: '',
      config: '',
      payload
    }
    const made = await this.api.create('secrets', {
      apiVersion: 'v1',
      kind: 'Secret',
      type: 'brigade.sh/build',
      metadata: {
        name,
        labels: { heritage: 'brigade', component: 'build', build: id, project },
        annotations: { [EMITTED_BY]: this.build.build }
      },
      data: Object.keys(data).reduce((all, field) => Object.assign(all, { [field]: base64(data[field] || '') }), {})
    })
    return made !== null
  }

  /** Seconds do not count that passed before this process saw that the pod is being deleted. */
  isOverdue (pod) {
    const { uid, deletionTimestamp, deletionGracePeriodSeconds = DEFAULT_GRACE_SECONDS } = pod.metadata
    if (!deletionTimestamp) return false
    const now = process.uptime() * 1000
    if (!this.dying.has(uid)) this.dying.set(uid, now)
    return now - this.dying.get(uid) > deletionGracePeriodSeconds * 1000 + BEYOND_GRACE_MS
  }

  secret (key, record, result, entry) {
    const data = { record: base64(JSON.stringify(record)) }
    if (result !== null) data.result = result.toString('base64')
    const metadata = {
      name: nameOf(key),
      labels: { [LABEL]: 'v1', 'bridge.brigade.sh/checkpoint-project': this.project },
      annotations: { [NAME]: record.name.slice(0, LONGEST_NAME), [STATE]: record.state },
      ownerReferences: this.owners(entry)
    }
    if (entry !== null) metadata.resourceVersion = entry.version
    return { apiVersion: 'v1', kind: 'Secret', type: TYPE, metadata, data }
  }

  owners (entry) {
    const known = entry === null ? [] : entry.owners
    if (!this.owner || known.some(one => one.uid === this.owner.uid)) return known
    return known.concat(this.owner)
  }
}

function nameOf (key) { return `durable-${key}` }

function entryOf ({ metadata, data }) {
  return {
    version: metadata.resourceVersion,
    owners: metadata.ownerReferences || [],
    record: JSON.parse(Buffer.from(data.record, 'base64').toString()),
    result: data.result === undefined ? null : Buffer.from(data.result, 'base64')
  }
}

function endedByCluster ({ status }) {
  const disrupted = (status.conditions || []).some(one => one.type === 'DisruptionTarget' && one.status === 'True')
  return disrupted || ENDS_BY_CLUSTER.includes(status.reason)
}

function waitingOf ({ status }) {
  const [first] = status.containerStatuses || []
  return first && first.state && first.state.waiting
}

function base64 (text) { return Buffer.from(text).toString('base64') }

module.exports = { KubernetesStore }
}

modules["lib/machine.js"] = (module, exports, require) => {
// The store of one machine: files in a folder that the worker names, and processes as holders.

const fs = require('fs')
const path = require('path')

/**
 * A checkpoint is a folder of numbered files, each a whole record, of which the highest counts. A file is made with
 * link(2), which fails where there is one: of two who follow the same record one succeeds, whoever dies meanwhile.
 */
class MachineStore {
  constructor (folder, worker, outbox) {
    const { build } = worker
    this.folder = folder
    this.build = build
    this.worker = worker
    this.outbox = outbox
    this.holder = Object.assign({ build }, identityOf(process.pid))
    this.pollMs = 100
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 })
  }

  async read (key) {
    const version = this.newest(key)
    if (version === 0) return null
    const { record, result } = JSON.parse(fs.readFileSync(this.file(key, version), 'utf8'))
    return { version, record, result: result === undefined ? null : Buffer.from(result, 'base64') }
  }

  async create (key, record) {
    fs.mkdirSync(path.join(this.folder, key), { recursive: true, mode: 0o700 })
    return this.write(key, 1, record, null)
  }

  async replace (key, entry, record, result = null) {
    return this.write(key, entry.version + 1, record, result)
  }

  /** A job ends with its worker: none is there without its holder. */
  async look () { return { phase: 'absent' } }

  /** The worker of one machine sees the end of each of its jobs. */
  watch () { return { lost: new Promise(() => {}), end: () => {} } }

  /** On one machine a build belongs to a run: `bridgectl local` takes the event like any other, for the pipelines on it. */
  async startBuild (id, event, payload) {
    if (!this.outbox) throw new Error(`emit ${event}: this machine's bridge is older than the package and takes no events`)
    const { project, commit, ref, provider } = this.worker
    const told = { event, provider, project, commit, ref, payload: Buffer.from(payload).toString('base64') }
    fs.mkdirSync(this.outbox, { recursive: true, mode: 0o700 })
    // What was taken keeps its name with a suffix. Written again in between, it would be met as a repeat.
    if (fs.readdirSync(this.outbox).some(name => name.startsWith(`${id}.`) && !name.endsWith('.tmp'))) return false
    return publish(path.join(this.outbox, id), JSON.stringify(told))
  }

  async isAlive (holder) {
    const now = identityOf(holder.pid)
    return now !== null && now.start === holder.start && now.boot === holder.boot
  }

  write (key, version, record, result) {
    const text = JSON.stringify(result === null ? { record } : { record, result: result.toString('base64') })
    return publish(this.file(key, version), text) ? { version, record, result } : null
  }

  newest (key) {
    let names
    try {
      names = fs.readdirSync(path.join(this.folder, key))
    } catch (error) {
      if (error.code === 'ENOENT') return 0
      throw error
    }
    return Math.max(0, ...names.filter(name => /^\d+$/.test(name)).map(Number))
  }

  file (key, version) { return path.join(this.folder, key, String(version)) }
}

/** Make a file with this text, whole and on the disk; false if there is one. Of many who do it at once one makes it. */
function publish (place, text) {
  const half = `${place}.${process.pid}-${Math.random().toString(36).slice(2)}.tmp`
  const file = fs.openSync(half, 'wx', 0o600)
  try {
    fs.writeFileSync(file, text)
    fs.fsyncSync(file)
  } finally {
    fs.closeSync(file)
  }
  try {
    fs.linkSync(half, place)
    return true
  } catch (error) {
    if (error.code === 'EEXIST') return false
    throw error
  } finally {
    fs.unlinkSync(half)
  }
}

/** A process for good: its number, when it began and the boot of the machine. Null when it is gone or has ended. */
function identityOf (pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The second field is the command in parentheses, and may contain both.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (fields[0] === 'Z' || fields[0] === 'X') return null
    return { pid, start: Number(fields[19]), boot: fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim() }
  } catch (error) {
    if (error.code === 'ENOENT' || error.code === 'ESRCH') return null
    throw error
  }
}

module.exports = { MachineStore }
}

modules["lib/results.js"] = (module, exports, require) => {
// What a checkpoint keeps, as the bytes that a store holds.

const zlib = require('zlib')

// A Secret takes 1 MiB in all; the record needs a little of it.
const LARGEST_BYTES = 700 * 1024
const LONGEST_LOG = 4 * 1024 * 1024
const CUT = '... the beginning of this log was dropped\n'

/** The end of `log`, as much of it as a store takes. */
function packLog (log) {
  for (let text = log, longest = LONGEST_LOG; ; longest /= 2) {
    if (text.length > longest) text = CUT + log.slice(-longest)
    const bytes = zlib.gzipSync(text)
    if (bytes.length <= LARGEST_BYTES) return bytes
  }
}

/** `value` as JSON. Throws when it has none, or is too large to be kept. */
function packValue (value) {
  // JSON has no word for undefined, which is what a function without a return gives.
  const bytes = zlib.gzipSync(JSON.stringify({ value }))
  if (bytes.length <= LARGEST_BYTES) return bytes
  throw new Error(`its result has ${bytes.length} bytes, compressed; at most ${LARGEST_BYTES} can be kept`)
}

function unpackLog (bytes) {
  return bytes === null ? '' : zlib.gunzipSync(bytes).toString()
}

function unpackValue (bytes) {
  return JSON.parse(zlib.gunzipSync(bytes).toString()).value
}

module.exports = { LARGEST_BYTES, packLog, unpackLog, packValue, unpackValue }
}

modules["lib/retry.js"] = (module, exports, require) => {
// Trying again what returns a promise.

const LONGEST_PAUSE_MS = 60 * 1000
const FIRST_PAUSE_MS = 1000

/**
 * How long to wait after `failures` failures: `first`, doubled with each one, a minute at most (or `first`, if that
 * is longer), and up to a quarter less, so that those who failed together do not come back together.
 */
function pauseAfter (failures, first = FIRST_PAUSE_MS) {
  const longest = Math.max(first, LONGEST_PAUSE_MS)
  const whole = Math.min(first * Math.pow(2, failures - 1), longest)
  return whole * (1 - Math.random() / 4)
}

function pause (ms) {
  return new Promise(resolve => setTimeout(resolve, ms))
}

/** Throws unless `attempts` is a whole number from 1 on and `backoff` a number of milliseconds from 0 on. */
function checkTries ({ attempts, backoff }, of) {
  if (!Number.isInteger(attempts) || attempts < 1) {
    throw new Error(`${of}: attempts must be a whole number, at least 1`)
  }
  if (typeof backoff !== 'number' || !(backoff >= 0)) {
    throw new Error(`${of}: backoff must be a number of milliseconds`)
  }
}

/**
 * Call `fn(attempt)` until it succeeds, `attempts` times at most, and give what it gave; else the last error.
 * `retryIf(error)` false ends it at once. The pauses begin with `backoff` milliseconds and double.
 */
async function retry (fn, { attempts = 3, backoff = FIRST_PAUSE_MS, retryIf = () => true } = {}) {
  if (typeof fn !== 'function') throw new Error('retry: the first argument must be a function')
  checkTries({ attempts, backoff }, 'retry')
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await fn(attempt)
    } catch (error) {
      if (attempt >= attempts || !retryIf(error)) throw error
      await pause(pauseAfter(attempt, backoff))
    }
  }
}

module.exports = { FIRST_PAUSE_MS, retry, pause, pauseAfter, checkTries }
}

modules["lib/settle.js"] = (module, exports, require) => {
// One piece of work under one key: found finished, waited for, taken over, or done here and written down.

const { pause, pauseAfter } = require('./retry')

// A cluster that loses a job this often in one build has a problem that another launch does not solve.
const MOST_LOST = 10
// Between a worker's death and the end of what it was about to do.
const LOOKS_UNTIL_LOST = 2
const LONGEST_REASON = 300

// What this process itself is doing now, by launch: its own claims cannot be told from the outside.
const driving = new Set()

/**
 * Bring the work under `key` to its end, and give its value.
 *
 * | the record says         | and                                        | then |
 * |-------------------------|--------------------------------------------|------|
 * | succeeded               |                                            | its kept result counts |
 * | running                 | the job is there, or its holder lives      | wait |
 * | running                 | the job has ended                          | that is its result |
 * | nothing, lost, running  | neither job nor holder is there            | do it |
 * | failed                  | fewer than `attempts` failures were seen   | do it again, after a pause |
 *
 * A failure counts when this call saw it happen; what failed in an earlier build is done again. Everything is
 * written under the version that was read, so of many who want to do it one does.
 *
 * `work` has `name`; `launch()`, what is kept of a launch before it begins; `start(record)`, which resolves to
 * {state: succeeded, bytes}, {state: failed, error} or {state: lost, reason}; `valueOf(bytes)`; and for jobs
 * `collect(record)`, the bytes of one that ended without us, `stop(record)` and `timeoutMs`.
 */
async function settle (store, key, work, { attempts, backoff }) {
  const seen = { failures: 0, lost: 0, looks: 0, waitedFor: null }
  for (;;) {
    const entry = await store.read(key)
    const record = entry === null ? { state: 'absent' } : entry.record
    if (record.state === 'succeeded') {
      if (seen.waitedFor === null) say(work, `done already in build ${record.holder.build}, skipped`)
      return work.valueOf(entry.result)
    }
    if (record.state === 'running') {
      await follow(store, key, entry, work, seen)
      continue
    }
    if (record.state === 'failed' && record.launch === seen.waitedFor) {
      seen.waitedFor = null
      seen.failures += 1
      if (seen.failures >= attempts) throw new Error(record.reason)
      await backOff(work, record.reason, seen.failures, attempts, backoff)
    }
    const done = await doIt(store, key, entry, work, seen)
    if (done === null || done.state === 'lost') continue
    if (done.state === 'succeeded') return work.valueOf(done.bytes)
    seen.failures += 1
    if (seen.failures >= attempts) throw done.error
    await backOff(work, reasonOf(done.error), seen.failures, attempts, backoff)
  }
}

/** One look at work that somebody began: wait a little, or write down what came of it. */
async function follow (store, key, entry, work, seen) {
  const { record } = entry
  const job = await store.look(record)
  if (job.phase === 'succeeded') {
    const bytes = await work.collect(record)
    await store.replace(key, entry, ended(record, 'succeeded'), bytes)
    return
  }
  if (job.phase === 'failed') {
    seen.waitedFor = record.launch
    if (job.left) await work.stop(record)
    await store.replace(key, entry, ended(record, 'failed', job.reason))
    return
  }
  if (job.phase === 'running' && !(job.ageMs > work.timeoutMs)) return wait(store, record, work, seen)
  const alive = await isAlive(store, record)
  if (alive) return wait(store, record, work, seen)
  if (job.phase === 'running') {
    seen.waitedFor = record.launch
    await work.stop(record)
    await store.replace(key, entry, ended(record, 'failed', `time limit (${work.timeoutMs} ms) exceeded`))
    return
  }
  seen.looks += 1
  if (seen.looks < LOOKS_UNTIL_LOST) return pause(store.pollMs)
  seen.looks = 0
  say(work, `${record.job || 'it'} of build ${record.holder.build} is lost${job.reason ? `: ${job.reason}` : ''}`)
  await store.replace(key, entry, ended(record, 'lost', job.reason))
}

async function wait (store, record, work, seen) {
  seen.looks = 0
  if (seen.waitedFor !== record.launch) say(work, `waiting for ${record.job || 'it'}, begun in build ${record.holder.build}`)
  seen.waitedFor = record.launch
  await pause(store.pollMs)
}

/** Claim the work and do it. Null if somebody else came first. */
async function doIt (store, key, entry, work, seen) {
  const launch = `${store.holder.build}.${Date.now().toString(36)}.${Math.random().toString(36).slice(2, 10)}`
  const record = Object.assign({ state: 'running', launch, name: work.name, holder: store.holder, at: now() },
    work.launch())
  // Before the claim: a second call in this process may read it at once.
  driving.add(launch)
  try {
    const claimed = entry === null ? await store.create(key, record) : await store.replace(key, entry, record)
    if (claimed === null) return null
    const done = await work.start(record)
    await writeDown(store, key, claimed, done, work)
    if (done.state !== 'lost') return done
    seen.lost += 1
    say(work, `${record.job || 'it'} is lost: ${done.reason}`)
    if (seen.lost > MOST_LOST) throw new Error(`${work.name} was lost ${seen.lost} times in this build: ${done.reason}`)
    return done
  } finally {
    driving.delete(launch)
  }
}

/**
 * Write what came of our launch. Whatever it was, it is what happened: a store that does not take it costs another
 * build the knowledge, not this one its result. A success also counts when somebody took us for lost meanwhile.
 */
async function writeDown (store, key, claimed, done, work) {
  const reason = done.state === 'failed' ? reasonOf(done.error) : done.reason
  try {
    for (let entry = claimed; entry !== null; entry = await store.read(key)) {
      if (entry.record.state === 'succeeded') return
      if (entry.record.launch !== claimed.record.launch && done.state !== 'succeeded') return
      const record = ended(claimed.record, done.state, reason)
      if (await store.replace(key, entry, record, done.bytes) !== null) return
    }
  } catch (error) {
    say(work, `${done.state}, but that could not be written down: ${reasonOf(error)}`)
  }
}

async function isAlive (store, record) {
  const { holder } = record
  return holder.build === store.holder.build ? driving.has(record.launch) : store.isAlive(holder)
}

async function backOff (work, reason, failures, attempts, backoff) {
  const ms = pauseAfter(failures, backoff)
  say(work, `failed (${failures} of ${attempts}): ${reason}; trying again in ${Math.round(ms / 100) / 10} s`)
  await pause(ms)
}

function ended (record, state, reason) {
  return Object.assign({}, record, { state, reason, ended: now() })
}

function reasonOf (error) {
  return String(error instanceof Error ? error.message : error).slice(0, LONGEST_REASON)
}

function now () { return new Date().toISOString() }

function say (work, message) { console.log(`[durable] ${work.name}: ${message}`) }

module.exports = { settle, say }
}

modules["lib/worker.js"] = (module, exports, require) => {
// The worker that this process is: which build, what its results belong to, and where they are kept.

const fs = require('fs')

const { Api } = require('./api')
const { scopeOf, isAlone } = require('./key')
const { KubernetesStore } = require('./kubernetes')
const { MachineStore } = require('./machine')

// Where Brigade's worker looks for its script, in its order.
const SCRIPTS = ['/etc/brigade/script', '/vcs/brigade.js', '/etc/brigade-project/defaultScript',
  '/etc/brigade-default-script/brigade.js']

let opened = null

/** This process's worker, found out once; a failure to find out is not kept. */
function openWorker () {
  if (opened === null) {
    opened = open(process.env)
    opened.catch(() => { opened = null })
  }
  return opened
}

async function open (env) {
  const build = {
    build: env.BRIGADE_BUILD_ID,
    project: env.BRIGADE_PROJECT_ID,
    commit: env.BRIGADE_COMMIT_ID,
    event: env.BRIGADE_EVENT_TYPE,
    provider: env.BRIGADE_EVENT_PROVIDER,
    ref: env.BRIGADE_COMMIT_REF,
    cloneURL: env.BRIGADE_REMOTE_URL
  }
  for (const name of ['build', 'project']) {
    if (!build[name]) throw new Error(`this is no worker of Brigade: BRIGADE_${name.toUpperCase()}_ID is not set`)
  }
  if (env.BRIGADE_CHECKPOINTS) {
    const labels = JSON.parse(env.BRIGADE_BUILD_LABELS || '{}')
    return new Worker(build, labels, scriptOf(env), new MachineStore(env.BRIGADE_CHECKPOINTS, build, env.BRIGADE_EMITTED))
  }
  if (env.KUBERNETES_SERVICE_HOST) return openInCluster(env, build)
  throw new Error('there is no place for checkpoints: this is neither a cluster nor a machine of bridgectl local')
}

async function openInCluster (env, build) {
  const api = new Api(env)
  const name = env.BRIGADE_BUILD_NAME || `brigade-worker-${build.build}`
  const pod = await api.get('pods', name)
  if (pod === null) throw new Error(`the worker's own pod ${name} is not in namespace ${api.namespace}`)
  const owner = await api.get('secrets', name)
  const store = new KubernetesStore(api, build, pod, owner, Number(env.BRIGADE_DURABLE_POLL_MS) || undefined)
  return new Worker(build, pod.metadata.labels, scriptOf(env), store)
}

class Worker {
  constructor (build, labels, script, store) {
    this.build = build
    this.labels = labels
    this.script = script
    this.store = store
    this.warned = false
  }

  /** What `keyOf` takes: the work that `more` describes, and what it belongs to. */
  about (key, more) {
    const scope = scopeOf(Object.assign({ labels: this.labels }, this.build), key)
    if (isAlone(scope) && !this.warned) {
      this.warned = true
      console.log('[durable] this build has neither a run nor a commit: no other build can take over what it finishes')
    }
    return Object.assign({ project: this.build.project, scope, script: this.script }, more)
  }
}

/** Which of its scripts the worker runs; what is in it counts by the definitions of its jobs. */
function scriptOf (env) {
  if (env.BRIGADE_SCRIPT) return env.BRIGADE_SCRIPT
  return SCRIPTS.find(file => fs.existsSync(file) && fs.statSync(file).size > 0) || ''
}

module.exports = { openWorker }
}

module.exports = load('index.js')
