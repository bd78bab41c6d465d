'use strict'
// The store of one machine: files in a folder that the worker names, and processes as holders.

const fs = require('fs')
const path = require('path')

/**
 * A checkpoint is a folder of numbered files, each a whole record, of which the highest counts. A file is made with
 * link(2), which fails where there is one: of two who follow the same record one succeeds, whoever dies meanwhile.
 */
class MachineStore {
  constructor (folder, worker, outbox) {
    const { build } = worker
    this.folder = folder
    this.build = build
    this.worker = worker
    this.outbox = outbox
    this.holder = Object.assign({ build }, identityOf(process.pid))
    this.pollMs = 100
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 })
  }

  async read (key) {
    const version = this.newest(key)
    if (version === 0) return null
    const { record, result } = JSON.parse(fs.readFileSync(this.file(key, version), 'utf8'))
    return { version, record, result: result === undefined ? null : Buffer.from(result, 'base64') }
  }

  async create (key, record) {
    fs.mkdirSync(path.join(this.folder, key), { recursive: true, mode: 0o700 })
    return this.write(key, 1, record, null)
  }

  async replace (key, entry, record, result = null) {
    return this.write(key, entry.version + 1, record, result)
  }

  /** A job ends with its worker: none is there without its holder. */
  async look () { return { phase: 'absent' } }

  /** The worker of one machine sees the end of each of its jobs. */
  watch () { return { lost: new Promise(() => {}), end: () => {} } }

  /** On one machine a build belongs to a run: `bridgectl local` takes the event like any other, for the pipelines on it. */
  async startBuild (id, event, payload) {
    if (!this.outbox) throw new Error(`emit ${event}: this machine's bridge is older than the package and takes no events`)
    const { project, commit, ref, provider } = this.worker
    const told = { event, provider, project, commit, ref, payload: Buffer.from(payload).toString('base64') }
    fs.mkdirSync(this.outbox, { recursive: true, mode: 0o700 })
    // What was taken keeps its name with a suffix. Written again in between, it would be met as a repeat.
    if (fs.readdirSync(this.outbox).some(name => name.startsWith(`${id}.`) && !name.endsWith('.tmp'))) return false
    return publish(path.join(this.outbox, id), JSON.stringify(told))
  }

  async isAlive (holder) {
    const now = identityOf(holder.pid)
    return now !== null && now.start === holder.start && now.boot === holder.boot
  }

  write (key, version, record, result) {
    const text = JSON.stringify(result === null ? { record } : { record, result: result.toString('base64') })
    return publish(this.file(key, version), text) ? { version, record, result } : null
  }

  newest (key) {
    let names
    try {
      names = fs.readdirSync(path.join(this.folder, key))
    } catch (error) {
      if (error.code === 'ENOENT') return 0
      throw error
    }
    return Math.max(0, ...names.filter(name => /^\d+$/.test(name)).map(Number))
  }

  file (key, version) { return path.join(this.folder, key, String(version)) }
}

/** Make a file with this text, whole and on the disk; false if there is one. Of many who do it at once one makes it. */
function publish (place, text) {
  const half = `${place}.${process.pid}-${Math.random().toString(36).slice(2)}.tmp`
  const file = fs.openSync(half, 'wx', 0o600)
  try {
    fs.writeFileSync(file, text)
    fs.fsyncSync(file)
  } finally {
    fs.closeSync(file)
  }
  try {
    fs.linkSync(half, place)
    return true
  } catch (error) {
    if (error.code === 'EEXIST') return false
    throw error
  } finally {
    fs.unlinkSync(half)
  }
}

/** A process for good: its number, when it began and the boot of the machine. Null when it is gone or has ended. */
function identityOf (pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The second field is the command in parentheses, and may contain both.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (fields[0] === 'Z' || fields[0] === 'X') return null
    return { pid, start: Number(fields[19]), boot: fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim() }
  } catch (error) {
    if (error.code === 'ENOENT' || error.code === 'ESRCH') return null
    throw error
  }
}

module.exports = { MachineStore }
