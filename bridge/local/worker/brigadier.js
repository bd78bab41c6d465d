'use strict'
// What require("brigadier"), require("brigade") and require("@brigadecore/brigadier") give to a brigade.js.

const { EventEmitter } = require('events')

const { session } = require('./session')
const { LogLevel, ContextLogger } = require('./log')
const jobs = require('./jobs')

/** Handlers by event name; `ping` has one from the start, as in Brigade. */
class EventRegistry extends EventEmitter {
  constructor () {
    super()
    this.on('ping', () => console.log('ping'))
  }

  has (name) { return this.listenerCount(name) > 0 }
  fire (e, project) { this.emit(e.type, e, project) }
}

class BrigadeEvent {
  constructor () {
    this.type = 'unknown'
    this.logLevel = LogLevel.ALL
  }
}

class Revision {}
class Cause {}

class Project {
  constructor () {
    this.secrets = {}
    this.allowPrivilegedJobs = false
    this.allowHostMounts = false
  }
}

/** What a script may keep of an error: `cause`, an event, and `reason`. */
class ErrorReport {}

const events = new EventRegistry()

/** Call the handlers of e.type; without a handler nothing happens. Jobs belong to the event fired last. */
function fire (e, project) {
  session.event = e
  session.project = project
  events.fire(e, project)
}

module.exports = Object.assign({
  events,
  fire,
  ErrorReport,
  EventRegistry,
  BrigadeEvent,
  Revision,
  Cause,
  Project,
  LogLevel,
  ContextLogger,
  Logger: ContextLogger
}, jobs)
