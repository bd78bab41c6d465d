'use strict'
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
