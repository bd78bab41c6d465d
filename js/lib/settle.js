'use strict'
// One piece of work under one key: found finished, waited for, taken over, or done here and written down.

const { pause, pauseAfter } = require('./retry')

// A cluster that loses a job this often in one build has a problem that another launch does not solve.
const MOST_LOST = 10
// Between a worker's death and the end of what it was about to do.
const LOOKS_UNTIL_LOST = 2
const LONGEST_REASON = 300

// What this process itself is doing now, by launch: its own claims cannot be told from the outside.
const driving = new Set()

/**
 * Bring the work under `key` to its end, and give its value.
 *
 * | the record says         | and                                        | then |
 * |-------------------------|--------------------------------------------|------|
 * | succeeded               |                                            | its kept result counts |
 * | running                 | the job is there, or its holder lives      | wait |
 * | running                 | the job has ended                          | that is its result |
 * | nothing, lost, running  | neither job nor holder is there            | do it |
 * | failed                  | fewer than `attempts` failures were seen   | do it again, after a pause |
 *
 * A failure counts when this call saw it happen; what failed in an earlier build is done again. Everything is
 * written under the version that was read, so of many who want to do it one does.
 *
 * `work` has `name`; `launch()`, what is kept of a launch before it begins; `start(record)`, which resolves to
 * {state: succeeded, bytes}, {state: failed, error} or {state: lost, reason}; `valueOf(bytes)`; and for jobs
 * `collect(record)`, the bytes of one that ended without us, `stop(record)` and `timeoutMs`.
 */
async function settle (store, key, work, { attempts, backoff }) {
  const seen = { failures: 0, lost: 0, looks: 0, waitedFor: null }
  for (;;) {
    const entry = await store.read(key)
    const record = entry === null ? { state: 'absent' } : entry.record
    if (record.state === 'succeeded') {
      if (seen.waitedFor === null) say(work, `done already in build ${record.holder.build}, skipped`)
      return work.valueOf(entry.result)
    }
    if (record.state === 'running') {
      await follow(store, key, entry, work, seen)
      continue
    }
    if (record.state === 'failed' && record.launch === seen.waitedFor) {
      seen.waitedFor = null
      seen.failures += 1
      if (seen.failures >= attempts) throw new Error(record.reason)
      await backOff(work, record.reason, seen.failures, attempts, backoff)
    }
    const done = await doIt(store, key, entry, work, seen)
    if (done === null || done.state === 'lost') continue
    if (done.state === 'succeeded') return work.valueOf(done.bytes)
    seen.failures += 1
    if (seen.failures >= attempts) throw done.error
    await backOff(work, reasonOf(done.error), seen.failures, attempts, backoff)
  }
}

/** One look at work that somebody began: wait a little, or write down what came of it. */
async function follow (store, key, entry, work, seen) {
  const { record } = entry
  const job = await store.look(record)
  if (job.phase === 'succeeded') {
    const bytes = await work.collect(record)
    await store.replace(key, entry, ended(record, 'succeeded'), bytes)
    return
  }
  if (job.phase === 'failed') {
    seen.waitedFor = record.launch
    if (job.left) await work.stop(record)
    await store.replace(key, entry, ended(record, 'failed', job.reason))
    return
  }
  if (job.phase === 'running' && !(job.ageMs > work.timeoutMs)) return wait(store, record, work, seen)
  const alive = await isAlive(store, record)
  if (alive) return wait(store, record, work, seen)
  if (job.phase === 'running') {
    seen.waitedFor = record.launch
    await work.stop(record)
    await store.replace(key, entry, ended(record, 'failed', `time limit (${work.timeoutMs} ms) exceeded`))
    return
  }
  seen.looks += 1
  if (seen.looks < LOOKS_UNTIL_LOST) return pause(store.pollMs)
  seen.looks = 0
  say(work, `${record.job || 'it'} of build ${record.holder.build} is lost${job.reason ? `: ${job.reason}` : ''}`)
  await store.replace(key, entry, ended(record, 'lost', job.reason))
}

async function wait (store, record, work, seen) {
  seen.looks = 0
  if (seen.waitedFor !== record.launch) say(work, `waiting for ${record.job || 'it'}, begun in build ${record.holder.build}`)
  seen.waitedFor = record.launch
  await pause(store.pollMs)
}

/** Claim the work and do it. Null if somebody else came first. */
async function doIt (store, key, entry, work, seen) {
  const launch = `${store.holder.build}.${Date.now().toString(36)}.${Math.random().toString(36).slice(2, 10)}`
  const record = Object.assign({ state: 'running', launch, name: work.name, holder: store.holder, at: now() },
    work.launch())
  // Before the claim: a second call in this process may read it at once.
  driving.add(launch)
  try {
    const claimed = entry === null ? await store.create(key, record) : await store.replace(key, entry, record)
    if (claimed === null) return null
    const done = await work.start(record)
    await writeDown(store, key, claimed, done, work)
    if (done.state !== 'lost') return done
    seen.lost += 1
    say(work, `${record.job || 'it'} is lost: ${done.reason}`)
    if (seen.lost > MOST_LOST) throw new Error(`${work.name} was lost ${seen.lost} times in this build: ${done.reason}`)
    return done
  } finally {
    driving.delete(launch)
  }
}

/**
 * Write what came of our launch. Whatever it was, it is what happened: a store that does not take it costs another
 * build the knowledge, not this one its result. A success also counts when somebody took us for lost meanwhile.
 */
async function writeDown (store, key, claimed, done, work) {
  const reason = done.state === 'failed' ? reasonOf(done.error) : done.reason
  try {
    for (let entry = claimed; entry !== null; entry = await store.read(key)) {
      if (entry.record.state === 'succeeded') return
      if (entry.record.launch !== claimed.record.launch && done.state !== 'succeeded') return
      const record = ended(claimed.record, done.state, reason)
      if (await store.replace(key, entry, record, done.bytes) !== null) return
    }
  } catch (error) {
    say(work, `${done.state}, but that could not be written down: ${reasonOf(error)}`)
  }
}

async function isAlive (store, record) {
  const { holder } = record
  return holder.build === store.holder.build ? driving.has(record.launch) : store.isAlive(holder)
}

async function backOff (work, reason, failures, attempts, backoff) {
  const ms = pauseAfter(failures, backoff)
  say(work, `failed (${failures} of ${attempts}): ${reason}; trying again in ${Math.round(ms / 100) / 10} s`)
  await pause(ms)
}

function ended (record, state, reason) {
  return Object.assign({}, record, { state, reason, ended: now() })
}

function reasonOf (error) {
  return String(error instanceof Error ? error.message : error).slice(0, LONGEST_REASON)
}

function now () { return new Date().toISOString() }

function say (work, message) { console.log(`[durable] ${work.name}: ${message}`) }

module.exports = { settle, say }
