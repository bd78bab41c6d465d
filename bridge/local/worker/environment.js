'use strict'
// The environment of a job: the values that a script gave, and where they come from.

const NAME = /^[-._a-zA-Z][-._a-zA-Z0-9]*$/

/**
 * job.env as a plain object of strings. A secretKeyRef is looked up in build.json's clusterSecrets
 * ({secret: {key: value}}); without those Brigade's own warning is given and the variable is not set, as in
 * a Brigade project that does not allow references. Throws on what Kubernetes would refuse.
 */
function environmentOf (job, session) {
  const env = {}
  for (const name of Object.keys(job.env)) {
    if (!NAME.test(name)) throw new Error(`job ${job.name}: ${JSON.stringify(name)} cannot name a variable`)
    const value = valueOf(job, session, name, job.env[name])
    if (value !== undefined) env[name] = value
  }
  return env
}

function valueOf (job, session, name, value) {
  if (value === null) return ''
  if (typeof value === 'string') {
    if (!value.includes('\0')) return value
    throw new Error(`job ${job.name}: the value of ${name} has a NUL character`)
  }
  if (typeof value !== 'object') {
    throw new Error(`job ${job.name}: the value of ${name} is ${typeof value}, and must be a string`)
  }
  if (value.secretKeyRef) return secretOf(job, session, name, value.secretKeyRef)
  const kind = Object.keys(value)[0] || 'an empty object'
  session.warnOnce(`env.${kind}`, `job ${job.name}: env from ${kind} is not supported on one machine, ` +
    `not setting environment variable ${name}`)
  return undefined
}

function secretOf (job, session, name, ref) {
  const secrets = session.build.clusterSecrets
  if (Object.keys(secrets).length === 0) {
    session.logger.warn('Using secretKeyRef is not allowed in this project, ' +
      `not setting environment variable ${name}`)
    return undefined
  }
  const secret = own(secrets, ref.name) || {}
  const value = own(secret, ref.key)
  if (typeof value === 'string') return value
  if (ref.optional) return undefined
  throw new Error(`job ${job.name}: no key ${ref.key} in secret ${ref.name} for environment variable ${name}`)
}

function own (object, key) {
  return Object.prototype.hasOwnProperty.call(object, key) ? object[key] : undefined
}

module.exports = { environmentOf }
