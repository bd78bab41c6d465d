'use strict'
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
