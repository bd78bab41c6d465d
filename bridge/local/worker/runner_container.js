'use strict'
// Jobs as containers, by way of the command that build.json names: docker, podman or nerdctl.

const fs = require('fs')
const path = require('path')
const { spawn } = require('child_process')

const { folderFor } = require('./shared_folders')
const { shellWords, spawnOnLifeline } = require('./lifeline')

// How long a daemon may take to remove a container before the worker stops waiting for it.
const REMOVE_GRACE_MS = 60000
const ENGINE_FAILED = 125

const NOT_SUPPORTED = [
  ['imagePullSecrets', job => job.imagePullSecrets && job.imagePullSecrets.length > 0, 'log the engine in instead'],
  ['serviceAccount', job => job.serviceAccount, 'there is no cluster'],
  ['resourceRequests', job => job.resourceRequests && (job.resourceRequests.cpu || job.resourceRequests.memory), 'limits are honoured'],
  ['host', job => job.host.os || job.host.name || (job.host.nodeSelector && job.host.nodeSelector.size > 0), 'there is one host'],
  ['annotations', job => Object.keys(job.annotations).length > 0, 'there is no pod']
]

// Variables that would change the engine's own command, which runs with the job's values in its environment.
const OF_THE_CLIENT = new RegExp('^(PATH|HOME|USER|SHELL|PWD|TMPDIR|SSH_AUTH_SOCK|LD_.*|DYLD_.*|GO[A-Z0-9]+|SSL_CERT_.*|' +
  'XDG_.*|NERDCTL_.*|CONTAINERS?_.*|CONTAINERD_.*|STORAGE_.*|PODMAN_.*|DBUS_.*|BUILDKIT_.*|' +
  'DOCKER_(HOST|CONFIG|CONTEXT|CERT_PATH|TLS.*|API_VERSION|DEFAULT_PLATFORM|CONTENT_TRUST.*|CLI_.*|CUSTOM_HEADERS)|' +
  '(HTTP|HTTPS|NO|ALL|FTP)_PROXY)$', 'i')

/** Must the value of `name` be on the command line? A shell also drops names that it could not use itself. */
function isShown (name) { return OF_THE_CLIENT.test(name) || !/^\w+$/.test(name) }

function check (run) {
  const { job, session, project } = run
  if (!job.image) throw new Error(`job ${job.name} has no image`)
  for (const [name, used, why] of NOT_SUPPORTED) {
    if (used(job)) session.warnOnce(name, `job ${job.name}: ${name} is not supported on one machine: ${why}`)
  }
  if (job.docker.enabled && !project.allowHostMounts) {
    session.warnOnce('docker', `job ${job.name}: docker is not mounted, allowHostMounts is false in this project`)
  }
  for (const at of [job.mountPath, run.placeOf('cache'), run.placeOf('storage'), ...job.volumeMounts.map(m => m.mountPath)]) {
    if (at && !/^\/[^:,]*$/.test(at)) throw new Error(`job ${job.name}: cannot mount at ${JSON.stringify(at)}`)
  }
  // Here, so that a bad quantity is known before anything starts.
  limitsOf(job)
}

function prelude () { return '' }

/**
 * The mode of a copied file. Whoever the image runs as can read it, as in a pod, though the checkout is private to
 * us; others on this machine cannot, since BUILD_DIR is closed to them.
 */
function modeInJob (mode, isFolder) { return mode | (isFolder || mode & 0o100 ? 0o555 : 0o444) }

function prepare (run) {
  // An image may run as any user, and a pod's volumes are open to all; BUILD_DIR itself is closed to others.
  fs.chmodSync(run.folder('hook'), 0o755)
  if (run.script) fs.chmodSync(run.script, 0o644)
  fs.chmodSync(run.folder('work'), 0o777)
}

/** The arguments of the engine for this job. Values of variables are not among them: others can see them. */
function argumentsOf (run) {
  const { job, build } = run
  const argv = ['run', '--rm', '--init', '--name', run.podName, '--stop-timeout', '0']
  for (const [name, value] of Object.entries(labelsOf(run))) argv.push('--label', `${name}=${value}`)
  for (const name of Object.keys(run.env)) {
    argv.push('--env', isShown(name) ? `${name}=${run.env[name]}` : name)
  }
  for (const mount of mountsOf(run)) argv.push('-v', mount)
  argv.push(...limitsOf(job))
  if (job.imageForcePull) argv.push('--pull', 'always')
  if (job.privileged) argv.push('--privileged')
  if (run.script) {
    if (usesSource(job, build)) argv.push('-w', job.mountPath || '/src')
    return argv.concat(['--entrypoint', run.shell, job.image, '/hook/main.sh'], run.args)
  }
  return argv.concat([job.image], run.args)
}

function usesSource (job, build) { return Boolean(job.useSource && build.source) }

function labelsOf (run) {
  return Object.assign({}, run.build.labels, {
    heritage: 'brigade',
    component: 'job',
    jobname: run.job.name,
    project: run.project.id,
    worker: run.event.workerID,
    build: run.event.buildID
  })
}

function mountsOf (run) {
  const { job, build, project } = run
  const mounts = [`${run.folder('hook')}:/hook:ro`]
  if (usesSource(job, build)) mounts.push(`${run.folder('work')}:${job.mountPath || '/src'}`)
  for (const kind of ['cache', 'storage']) {
    if (!job[kind].enabled) continue
    const folder = folderFor(run, kind)
    fs.chmodSync(folder, 0o777)
    mounts.push(`${folder}:${run.placeOf(kind)}`)
  }
  if (job.docker.enabled && project.allowHostMounts) mounts.push('/var/run/docker.sock:/var/run/docker.sock')
  for (const mount of job.volumeMounts) {
    const from = volumeOf(run, job.volumes.find(volume => volume.name === mount.name))
    if (from) mounts.push(`${from}:${mount.mountPath}${mount.readOnly ? ':ro' : ''}`)
    if (mount.subPath) run.session.warnOnce('volumeMounts', `job ${job.name}: volumeMounts.subPath is not supported`)
  }
  return mounts
}

function volumeOf (run, volume) {
  if (volume.hostPath) return volume.hostPath.path
  if (volume.emptyDir) {
    const folder = path.join(run.folder('volumes'), encodeURIComponent(volume.name))
    fs.mkdirSync(folder, { recursive: true })
    fs.chmodSync(folder, 0o777)
    return folder
  }
  const kind = Object.keys(volume).find(key => key !== 'name') || 'no source'
  run.session.warnOnce(`volumes.${kind}`, `job ${run.job.name}: volumes of ${kind} are not supported, ` +
    `not mounting ${volume.name}`)
  return null
}

const SCALE = {
  m: 1e-3, '': 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40
}

/** A Kubernetes quantity such as 500m or 128Mi as a number. */
function quantity (job, text) {
  const found = /^(\d+(?:\.\d+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti|)$/.exec(String(text))
  if (!found) throw new Error(`job ${job.name}: cannot read the quantity ${JSON.stringify(text)}`)
  return Number(found[1]) * SCALE[found[2]]
}

function limitsOf (job) {
  const { cpu, memory } = job.resourceLimits || {}
  const argv = []
  if (cpu) argv.push('--cpus', String(quantity(job, cpu)))
  if (memory) argv.push('--memory', String(Math.ceil(quantity(job, memory))))
  return argv
}

function start (run) {
  const { command } = run.build.container
  const removal = removalOf(command, run.podName)
  const child = spawnOnLifeline(command.concat(argumentsOf(run)), {
    // The client first: one that is still pulling would start the container after its removal.
    whenLost: `kill -KILL $$; ${removal.map(shellWords).join('; ')}`,
    cwd: run.build.dir,
    env: Object.assign({}, process.env, clientEnvironment(run.env))
  })
  child.known = { container: run.podName, pid: child.pid }
  child.cleanUp = () => child.release()
  child.explain = exitCode => {
    if (exitCode !== ENGINE_FAILED) return
    run.session.logger.error(`${command[0]} could not run ${run.podName} (exit 125): see the job's output above`)
  }
  child.stop = async () => {
    // Not its group: the watcher is needed until the container is gone.
    child.kill('SIGKILL')
    for (const argv of removal) await quietly(argv)
  }
  return child
}

/**
 * The commands that end and remove a container. `rm -f` alone does not do: podman's first marks the container as
 * stopping, and if it is killed before it has stopped it, the next `rm -f` forgets the container and lets it run.
 */
function removalOf (command, name) { return [command.concat(['kill', name]), command.concat(['rm', '-f', name])] }

function clientEnvironment (env) {
  const hidden = Object.entries(env).filter(([name]) => !isShown(name))
  return hidden.reduce((all, [name, value]) => Object.assign(all, { [name]: value }), {})
}

/** Run `argv` to its end, whatever that is; a container that is not there is what was wanted. */
function quietly (argv) {
  return new Promise(resolve => {
    const child = spawn(argv[0], argv.slice(1), { stdio: 'ignore' })
    const clock = setTimeout(() => child.kill('SIGKILL'), REMOVE_GRACE_MS)
    const done = () => { clearTimeout(clock); resolve() }
    child.on('error', done)
    child.on('close', done)
  })
}

module.exports = { check, modeInJob, prelude, prepare, start }
