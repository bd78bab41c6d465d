'use strict'
// From the event to the exit code: after, error, and Brigade's log lines on the way.

const fs = require('fs')
const path = require('path')

const brigadier = require('./brigadier')
const { ContextLogger } = require('./log')
const { session, eventOf, projectOf } = require('./session')

class App {
  constructor (build) {
    this.build = build
    this.event = eventOf(build)
    this.project = projectOf(build)
    this.logger = new ContextLogger('app', this.event.logLevel)
    this.exitCode = 0
    this.errorHandled = false
    this.afterFired = false
    this.storageDestroyed = false
  }

  /** Fire the event as soon as the script has been read; everything else happens in process events. */
  start () {
    brigadier.events.once('error', () => {
      this.logger.log('error handler is cleaning up')
      this.destroyStorage()
      this.exitCode = 1
    })
    // `after` is fired once also when the script has no handler for it.
    brigadier.events.once('after', () => {
      this.afterFired = true
      setImmediate(() => this.logger.info('after: default event handler fired'))
    })
    process.on('unhandledRejection', reason => {
      this.logger.error(reason)
      this.fireError(reason)
    })
    process.on('beforeExit', code => this.beforeExit(code))
    process.on('exit', () => {
      if (this.exitCode !== 0 && !session.stopping) process.exitCode = this.exitCode
    })
    // In a promise, so that what a handler throws at once arrives where a rejection does.
    Promise.resolve().then(() => {
      this.createStorage()
      brigadier.fire(this.event, this.project)
    })
  }

  /** Nothing is left to do: fire `after` if the event had a handler, then clean up. */
  beforeExit (code) {
    if (this.exitCode !== 0 || session.stopping) return
    if (!this.afterFired) {
      this.fireAfter(code)
    } else if (!this.storageDestroyed) {
      this.logger.log('beforeExit(2): destroying storage')
      this.destroyStorage()
    }
  }

  fireAfter (code) {
    if (brigadier.events.has(this.event.type)) {
      this.fireOwn('after', { trigger: code === 0 ? 'success' : 'failure' })
      return
    }
    this.afterFired = true
    // Something to do, so that there is a second beforeExit.
    setImmediate(() => this.logger.log('no-after: fired'))
  }

  fireError (reason) {
    if (this.errorHandled) return
    this.errorHandled = true
    this.fireOwn('error', { reason, trigger: 'unhandledRejection' })
  }

  fireOwn (type, cause) {
    const { buildID, workerID, revision, logLevel } = this.event
    brigadier.fire({
      buildID,
      workerID,
      type,
      provider: 'brigade',
      revision,
      logLevel,
      cause: Object.assign({ event: this.event }, cause)
    }, this.project)
  }

  get storage () { return path.join(this.build.dir, 'storage') }

  createStorage () {
    session.logger.log(`Creating PVC named ${this.event.workerID.toLowerCase()}`)
    fs.mkdirSync(this.storage, { recursive: true })
    if (this.build.source && !fs.existsSync(this.build.source)) {
      throw new Error('the source folder that build.json names does not exist: check it out again')
    }
  }

  destroyStorage () {
    this.storageDestroyed = true
    session.logger.log(`Destroying PVC named ${this.event.workerID.toLowerCase()}`)
    // Jobs of a Group that is still running may use it; what they keep is removed with BUILD_DIR.
    if (session.open.size > 0) return
    try {
      fs.rmSync(this.storage, { recursive: true, force: true })
    } catch (error) {
      this.logger.log(`failed to destroy storage for ${this.event.workerID}: ${error.code}`)
    }
  }
}

module.exports = { App }
