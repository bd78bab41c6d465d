'use strict'
// A stand-in for Brigade's v1 worker: `node v1_worker.js SCRIPT`. It makes the Secrets and pods that Brigade makes,
// and has its habits: it does not see that a pod was deleted, leaves a pod whose time is over, waits for all of its
// jobs' time, and keeps its runner in `job.jr`. (../../docs say how the real one was tried.)

const { EventEmitter } = require('events')
const Module = require('module')
const path = require('path')

const { Api } = require('../lib/api')

const api = new Api(process.env)
const pollMs = Number(process.env.BRIGADE_DURABLE_POLL_MS)
const build = process.env.BRIGADE_BUILD_ID
const project = { id: process.env.BRIGADE_PROJECT_ID, kubernetes: { namespace: api.namespace } }
const events = new EventEmitter()

class JobRunner {
  constructor (job) {
    this.job = job
    this.name = `${job.name}-${build}`
    this.project = project
    this.pod = undefined
    this.cancel = false
    this.pvc = undefined
    const labels = { heritage: 'brigade', component: 'job', jobname: job.name, project: project.id, build, worker: `brigade-worker-${build}` }
    this.secret = { metadata: { name: this.name, labels }, type: 'brigade.sh/job' }
    const volumes = [{ name: this.name, secret: { secretName: this.name } }]
    const volumeMounts = [{ name: this.name, mountPath: '/hook' }]
    if (job.cache.enabled) {
      this.pvc = { metadata: { name: this.cacheName() } }
      volumes.push({ name: this.cacheName(), persistentVolumeClaim: { claimName: this.cacheName() } })
      volumeMounts.push({ name: this.cacheName(), mountPath: job.cache.path })
    }
    this.runner = {
      metadata: { name: this.name, labels, annotations: job.annotations },
      spec: {
        restartPolicy: 'Never',
        serviceAccountName: 'brigade-worker',
        containers: [{
          name: 'brigaderun', image: job.image, volumeMounts: volumeMounts.concat(job.volumeMounts)
        }],
        volumes: volumes.concat(job.volumes)
      }
    }
  }

  cacheName () { return `acme-widgets-${this.job.name}` }

  async run () {
    await this.create('secrets', this.secret)
    // The worker's end between its claim and its job's pod.
    if (process.env.DIE_BEFORE_THE_POD) process.kill(process.pid, 'SIGKILL')
    await this.create('pods', this.runner)
    await this.wait()
    return { data: await this.logs(), toString () { return this.data } }
  }

  logs () { return api.log(this.name, 'brigaderun') }

  async create (kind, body) {
    if (await api.create(kind, body) === null) throw new Error(`${kind} "${this.name}" already exists`)
  }

  wait () {
    return new Promise((resolve, reject) => {
      let watching = false
      const clear = () => { clearInterval(interval); clearTimeout(waiter) }
      const poll = () => {
        if (this.cancel) return clear()
        if (!watching) {
          watching = true
          api.get('pods', this.name).then(pod => { if (pod !== null) this.pod = pod }, () => {}).then(() => { watching = false })
        }
        if (!this.pod || !this.pod.status) return
        const { phase } = this.pod.status
        console.log(`[brigade:k8s] ${this.name} phase ${phase}`)
        if (phase === 'Succeeded') { clear(); resolve() }
        if (phase === 'Failed') { clear(); reject(new Error(`Pod ${this.name} failed to run to completion`)) }
      }
      const interval = setInterval(poll, pollMs)
      const waiter = setTimeout(() => {
        this.cancel = true
        reject(new Error(`time limit (${this.job.timeout} ms) exceeded`))
      }, this.job.timeout)
    })
  }
}

class Job {
  constructor (name, image, tasks) {
    Object.assign(this, {
      name, image, tasks: tasks || [], args: [], env: {}, shell: '/bin/sh', timeout: 900000, useSource: true,
      mountPath: '/src', privileged: false, volumes: [], volumeMounts: [], annotations: {}, imagePullSecrets: [],
      cache: { enabled: false, path: '/mnt/brigade/cache' }, storage: { enabled: false }, docker: { enabled: false },
      host: { nodeSelector: new Map() }
    })
  }

  run () {
    this.jr = new JobRunner(this)
    this._podName = this.jr.name
    return this.jr.run().catch(error => {
      console.error(error)
      return Promise.reject(new Error(`job ${this.name}(${this.jr.name}): ${error}`))
    })
  }

  logs () { return this.jr.logs() }
  get podName () { return this._podName }
}

const stub = path.join(__dirname, 'brigadier-of-v1.js')
require.cache[stub] = Object.assign(new Module(stub), { filename: stub, loaded: true, exports: { events, Job } })
const resolve = Module._resolveFilename
Module._resolveFilename = function (request, ...more) {
  return /^(@brigadecore\/)?brigadier$/.test(request) ? stub : resolve.call(this, request, ...more)
}

process.on('unhandledRejection', reason => {
  console.log(String(reason))
  process.exitCode = 1
})
require(path.resolve(process.argv[2]))
Promise.resolve().then(() => events.emit(process.env.BRIGADE_EVENT_TYPE, { type: process.env.BRIGADE_EVENT_TYPE, buildID: build }, project))
