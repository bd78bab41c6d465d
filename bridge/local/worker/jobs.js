'use strict'
// Job and Group as a brigade.js sees them.

const { session } = require('./session')
const { JobRun } = require('./running')

const MAX_JOB_NAME_LENGTH = 36
const brigadeCachePath = '/mnt/brigade/cache'
const brigadeStoragePath = '/mnt/brigade/share'
const dockerSocketMountPath = '/var/run/docker.sock'
const dockerSocketMountName = 'docker-socket'

/** At most 36 of a-z, 0-9, '-' and '.', the first and the last a letter or digit. */
function jobNameIsValid (name) {
  return typeof name === 'string' && name.length <= MAX_JOB_NAME_LENGTH &&
    /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(name)
}

function checkName (name) {
  if (jobNameIsValid(name)) return
  throw new Error("job name must be lowercase letters, numbers, and '-', and must not start or end with '-', " +
    `having max length ${MAX_JOB_NAME_LENGTH}`)
}

class JobCache {
  constructor () {
    this.enabled = false
    this.size = '5Mi'
    this.path = brigadeCachePath
  }
}

class JobStorage {
  constructor () {
    this.enabled = false
    this.path = brigadeStoragePath
  }
}

class JobHost {
  constructor () {
    this.os = undefined
    this.name = undefined
    this.nodeSelector = new Map()
  }
}

class JobDockerMount {
  constructor () { this.enabled = false }
}

class JobResourceRequest {
  constructor () {
    this.cpu = undefined
    this.memory = undefined
  }
}

class JobResourceLimit extends JobResourceRequest {}

/** Commands that run in an image; see README.md for the properties that one machine honours. */
class Job {
  constructor (name, image, tasks, imageForcePull = false) {
    checkName(name)
    this.name = name
    this.shell = '/bin/sh'
    this.tasks = tasks || []
    this.args = []
    this.env = {}
    this.image = image || ''
    this.imageForcePull = imageForcePull
    this.imagePullSecrets = []
    this.mountPath = '/src'
    this.timeout = 15 * 60 * 1000
    this.useSource = true
    this.privileged = false
    this.serviceAccount = undefined
    this.resourceRequests = new JobResourceRequest()
    this.resourceLimits = new JobResourceLimit()
    this.host = new JobHost()
    this.cache = new JobCache()
    this.storage = new JobStorage()
    this.volumes = []
    this.volumeMounts = []
    this.docker = new JobDockerMount()
    this.annotations = {}
    this.streamLogs = false
    this._podName = ''
    // The run itself is of no use to a script, and would make console.log(job) unreadable.
    Object.defineProperty(this, 'jr', { value: null, writable: true, enumerable: false })
  }

  get podName () { return this._podName }

  /**
   * Run the job once. Throws at once if the job may not or cannot be run as it is described; otherwise
   * resolves to a Result, whose toString() is the job's output, or rejects when it failed or took too long.
   */
  run () {
    checkName(this.name)
    this.warnOfUnknownProperties()
    this.jr = new JobRun(this, session)
    this._podName = this.jr.podName
    return this.jr.run().catch(error => {
      console.error(String(error))
      throw new Error(`job ${this.name}(${this.podName}): ${error}`)
    })
  }

  /** A property that no Job has is mostly a slip of the pen; a subclass may have its own. */
  warnOfUnknownProperties () {
    if (this.constructor !== Job) return
    const known = Object.keys(new Job('any'))
    for (const name of Object.keys(this).filter(name => !known.includes(name))) {
      session.warnOnce(name, `job ${this.name}: ${name} is not a property of a Job`)
    }
  }

  /** The output so far. */
  async logs () {
    if (!this.jr) throw new Error(`job ${this.name} has no logs: it was not run`)
    return this.jr.logs()
  }
}

Job.MAX_JOB_NAME_LENGTH = MAX_JOB_NAME_LENGTH

/** Jobs that are run together (runAll) or one after the other (runEach); both stop at the first failure. */
class Group {
  constructor (jobs) { this.jobs = jobs || [] }

  static runAll (jobs) { return new Group(jobs).runAll() }
  static runEach (jobs) { return new Group(jobs).runEach() }

  add (...jobs) { this.jobs.push(...jobs) }
  length () { return this.jobs.length }

  /** Start all; the results in the order of the jobs. Those still running when one fails run to their end. */
  runAll () { return Promise.all(this.jobs.map(job => job.run())) }

  async runEach () {
    const results = []
    for (const job of this.jobs) results.push(await job.run())
    return results
  }
}

module.exports = {
  Job,
  Group,
  JobCache,
  JobStorage,
  JobHost,
  JobDockerMount,
  JobResourceRequest,
  JobResourceLimit,
  jobNameIsValid,
  brigadeCachePath,
  brigadeStoragePath,
  dockerSocketMountPath,
  dockerSocketMountName
}
