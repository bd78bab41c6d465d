'use strict'
// What the worker says: Brigade's log lines on stdout, and the output of jobs, line by line.

const fs = require('fs')

// Numbers and names both ways, as scripts compare e.logLevel with LogLevel.INFO.
const LogLevel = {}
;['ALL', 'LOG', 'INFO', 'WARN', 'ERROR', 'NONE'].forEach((name, number) => {
  LogLevel[name] = number
  LogLevel[number] = name
})

/** The level called `name` in any case; what is unknown or absent is LOG, as Brigade's CLI sends. */
function levelNamed (name) {
  const level = LogLevel[String(name || 'LOG').toUpperCase()]
  return typeof level === 'number' ? level : LogLevel.LOG
}

/** Writes `[brigade:<context>] message` for messages at or above its level. */
class ContextLogger {
  constructor (context = [], logLevel = LogLevel.LOG) {
    this.context = `[${['brigade'].concat(context).join(':')}]`
    this.logLevel = logLevel
  }

  error (...message) { if (LogLevel.ERROR >= this.logLevel) console.error(this.context, ...message) }
  warn (...message) { if (LogLevel.WARN >= this.logLevel) console.warn(this.context, ...message) }
  info (...message) { if (LogLevel.INFO >= this.logLevel) console.info(this.context, ...message) }
  log (...message) { if (LogLevel.LOG >= this.logLevel) console.log(this.context, ...message) }
}

const NEWLINE = 0x0a
const LONGEST_LINE = 64 * 1024
// A job that never stops talking must not fill the disk: about six times what a kubelet keeps.
const LONGEST_LOG = 64 * 1024 * 1024

/**
 * Takes a job's output in pieces. The bytes go to its own file as they are, and to stdout in whole lines
 * that each begin with `[job] `, so that no job can write a line that looks like the worker's own.
 */
class JobLog {
  constructor (path, jobName, longest = LONGEST_LOG) {
    this.path = path
    this.prefix = Buffer.from(`[${jobName}] `)
    this.left = longest
    this.rest = Buffer.alloc(0)
    this.file = fs.openSync(path, 'a', 0o600)
  }

  write (piece) {
    if (this.left <= 0) return
    if (piece.length > this.left) {
      const end = Buffer.from('\n... the rest of this output was dropped\n')
      piece = Buffer.concat([piece.slice(0, this.left), end])
      this.left = 0
    } else {
      this.left -= piece.length
    }
    this.keep(piece)
    this.show(piece)
  }

  close () {
    if (this.rest.length > 0) this.say(this.rest)
    this.rest = Buffer.alloc(0)
    if (this.file !== null) fs.closeSync(this.file)
    this.file = null
  }

  keep (piece) {
    if (this.file === null) return
    try {
      for (let at = 0; at < piece.length;) at += fs.writeSync(this.file, piece, at)
    } catch (error) {
      // A full disk costs the log, not the job: its exit code is what counts.
      fs.closeSync(this.file)
      this.file = null
      console.error(`[brigade:k8s] cannot write ${this.path} (${error.code}); the job goes on without it`)
    }
  }

  show (piece) {
    let data = Buffer.concat([this.rest, piece])
    for (let end = data.indexOf(NEWLINE); end >= 0; end = data.indexOf(NEWLINE)) {
      this.say(data.slice(0, end))
      data = data.slice(end + 1)
    }
    for (; data.length >= LONGEST_LINE; data = data.slice(LONGEST_LINE)) this.say(data.slice(0, LONGEST_LINE))
    this.rest = data
  }

  say (line) {
    process.stdout.write(Buffer.concat([this.prefix, line, Buffer.from('\n')]))
  }
}

module.exports = { LogLevel, levelNamed, ContextLogger, JobLog }
