'use strict'
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
