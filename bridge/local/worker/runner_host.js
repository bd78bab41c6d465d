'use strict'
// Jobs as processes of this machine. Nothing is isolated: this is for demos and for scripts that one trusts.

const fs = require('fs')
const path = require('path')

const { folderFor } = require('./shared_folders')
const { shellWords, signalGroup, spawnOnLifeline } = require('./lifeline')

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const STOP_GRACE_MS = 2000

// Properties that mean nothing to a process of this machine.
const IGNORED = [
  ['imagePullSecrets', job => job.imagePullSecrets && job.imagePullSecrets.length > 0],
  ['imageForcePull', job => job.imageForcePull],
  ['privileged', job => job.privileged],
  ['serviceAccount', job => job.serviceAccount],
  ['resourceRequests', job => isSet(job.resourceRequests)],
  ['resourceLimits', job => isSet(job.resourceLimits)],
  ['host', job => job.host.os || job.host.name || (job.host.nodeSelector && job.host.nodeSelector.size > 0)],
  ['docker', job => job.docker.enabled],
  ['annotations', job => Object.keys(job.annotations).length > 0],
  ['volumes', job => job.volumes.length > 0]
]

function isSet (resources) { return resources && (resources.cpu || resources.memory) }

function check (run) {
  const { job, session } = run
  if (job.tasks.length === 0) {
    throw new Error(`job ${job.name} has no tasks: it would run its image as it is, and on the host there is none`)
  }
  if (job.image) session.warnOnce('image', `job ${job.name}: image is ignored, jobs run on the host`)
  for (const [name, used] of IGNORED) {
    if (used(job)) session.warnOnce(name, `job ${job.name}: ${name} is ignored on the host`)
  }
  for (const [name, at] of [['storage', 'BRIGADE_STORAGE'], ['cache', 'BRIGADE_CACHE']]) {
    if (!job[name].enabled) continue
    session.warnOnce(`${name}.path`, `job ${job.name}: ${run.placeOf(name)} does not exist on the host, ` +
      `${name} is at $${at}`)
  }
}

/** The mode of a copied file: the job runs as us. */
function modeInJob (mode) { return mode }

/**
 * `cd /src`, with which nearly every Brigade job begins, goes to the copy of the source instead. Other uses
 * of mountPath find nothing.
 */
function prelude (run) {
  const mount = shellWords([(run.job.mountPath || '/src').replace(/\/+$/, '') || '/'])
  if (!['/bin/sh', '/bin/bash'].includes(run.shell) || mount === "'/'") return ''
  return `bridge_mount=${mount}
cd() {
  case "\${1-}" in
    "$bridge_mount"|"$bridge_mount"/*) command cd "$BRIGADE_WORKSPACE\${1#"$bridge_mount"}" ;;
    *) command cd "$@" ;;
  esac
}
`
}

function prepare (run) {
  const { dir } = run.build
  for (const name of ['home', 'tmp']) fs.mkdirSync(path.join(dir, name), { recursive: true, mode: 0o700 })
}

function environment (run) {
  const { dir } = run.build
  const env = {
    PATH: process.env.PATH || DEFAULT_PATH,
    HOME: path.join(dir, 'home'),
    TMPDIR: path.join(dir, 'tmp'),
    BRIGADE_WORKSPACE: run.folder('work')
  }
  if (run.job.storage.enabled) env.BRIGADE_STORAGE = folderFor(run, 'storage')
  if (run.job.cache.enabled) env.BRIGADE_CACHE = folderFor(run, 'cache')
  return Object.assign(env, run.env)
}

function start (run) {
  const argv = [run.shell, run.script].concat(run.args)
  const child = spawnOnLifeline(argv, { whenLost: 'kill -KILL 0', cwd: run.folder('work'), env: environment(run) })
  child.known = { pid: child.pid, pidStart: startOf(child.pid) }
  // What a job left in the background ends with it, as it would with a pod. This ends the watcher as well.
  child.cleanUp = () => signalGroup(child.pid, 'SIGKILL')
  child.explain = () => {}
  child.stop = () => new Promise(resolve => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve()
    const hard = setTimeout(() => signalGroup(child.pid, 'SIGKILL'), STOP_GRACE_MS)
    child.once('exit', () => { clearTimeout(hard); resolve() })
    signalGroup(child.pid, 'SIGTERM')
  })
  return child
}

/** When a process began, in clock ticks since boot: with its pid this names it for good. Null without /proc. */
function startOf (pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The second field is the command in parentheses, and may contain both.
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19])
  } catch (error) {
    return null
  }
}

module.exports = { check, modeInJob, prelude, prepare, start }
