'use strict'
// The one build that this process is: what it was told, what is going on, what was warned about.

const fs = require('fs')
const path = require('path')

const { ContextLogger, levelNamed } = require('./log')

/** build.json says something that no build can be made of. */
class BadBuild extends Error {}

/** What BUILD_DIR/build.json and BUILD_DIR/payload say, checked as far as this worker depends on it. */
function readBuild (dir) {
  let told
  try {
    told = JSON.parse(fs.readFileSync(path.join(dir, 'build.json'), 'utf8'))
  } catch (error) {
    throw new BadBuild(`cannot read build.json: ${error.code || 'it is not JSON'}`)
  }
  for (const [field, kind] of [['id', 'string'], ['project', 'object'], ['event', 'object'], ['script', 'string']]) {
    // eslint-disable-next-line valid-typeof
    if (!told || typeof told[field] !== kind || !told[field]) throw new BadBuild(`build.json has no ${field}`)
  }
  if (!['container', 'host'].includes(told.jobs)) throw new BadBuild('build.json: jobs is neither container nor host')
  const command = (told.container || {}).command
  if (told.jobs === 'container' && !(Array.isArray(command) && command.length > 0)) {
    throw new BadBuild('build.json: jobs run in containers, but container.command is empty')
  }
  return Object.assign({}, told, {
    dir,
    source: told.source ? path.resolve(told.source) : '',
    cacheRoot: told.cacheRoot || '',
    checkpoints: told.checkpoints || '',
    emitted: told.emitted || '',
    labels: told.labels || {},
    clusterSecrets: told.clusterSecrets || {}
  })
}

/** The event as a handler sees it. */
function eventOf (build) {
  const { event, dir } = build
  const e = {
    buildID: event.buildID || build.id,
    workerID: event.workerID || `brigade-worker-${build.id}`,
    type: event.type || 'ping',
    provider: event.provider || 'unknown',
    cloneURL: event.cloneURL || '',
    revision: { commit: (event.revision || {}).commit, ref: (event.revision || {}).ref },
    payload: event.payload || '',
    logLevel: levelNamed(event.logLevel)
  }
  if (event.cause) e.cause = event.cause
  const file = path.join(dir, 'payload')
  if (fs.existsSync(file)) e.payload = fs.readFileSync(file, 'utf8')
  return e
}

/**
 * The project as a handler sees it. build.json has the names where they belong; Brigade swaps p.name and
 * p.repo.name when the project has a repository, and scripts in the field count on that, so we do as well.
 */
function projectOf (build) {
  const { project } = build
  const p = {
    id: project.id,
    name: project.name,
    kubernetes: Object.assign({
      namespace: 'default',
      buildStorageSize: '50Mi',
      vcsSidecar: '',
      vcsSidecarResourcesLimitsCPU: '',
      vcsSidecarResourcesLimitsMemory: '',
      vcsSidecarResourcesRequestsCPU: '',
      vcsSidecarResourcesRequestsMemory: '',
      cacheStorageClass: '',
      buildStorageClass: ''
    }, project.kubernetes),
    secrets: project.secrets || {},
    allowPrivilegedJobs: project.allowPrivilegedJobs !== false,
    allowHostMounts: project.allowHostMounts === true
  }
  const repo = project.repo
  if (repo && repo.name) {
    p.name = repo.name
    p.repo = Object.assign({ cloneURL: null, initGitSubmodules: false }, repo, { name: project.name })
  }
  return p
}

const session = {
  build: null,
  /** The event and project of the newest fire(): a job belongs to the handler that is running. */
  event: null,
  project: null,
  /** True once the worker has been told to stop: nothing is started any more. */
  stopping: false,
  /** Runs of jobs that have not ended. */
  open: new Set(),
  logger: new ContextLogger('k8s'),
  warned: new Set(),

  begin (dir) {
    this.build = readBuild(dir)
    this.logger.logLevel = levelNamed(this.build.event.logLevel)
    return this.build
  },

  /** Say something about the property `name` once in a build, whatever the number of jobs. */
  warnOnce (name, message) {
    if (this.warned.has(name)) return
    this.warned.add(name)
    this.logger.warn(message)
  }
}

module.exports = { session, readBuild, eventOf, projectOf, BadBuild }
