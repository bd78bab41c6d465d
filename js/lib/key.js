'use strict'
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
