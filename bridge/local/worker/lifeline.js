'use strict'
// Child processes that do not outlive the worker, however it dies.

const { spawn } = require('child_process')

/** `words` as one piece of shell text in which every word stays a word. */
function shellWords (words) {
  return words.map(word => `'${word.replace(/'/g, "'\\''")}'`).join(' ')
}

/**
 * Start `argv` as the leader of a process group of its own, output and errors in one stdout.
 *
 * A watcher in that group holds the other end of a pipe to this process. When the worker is gone, by SIGKILL
 * too, the kernel closes the pipe and the watcher runs `whenLost`, shell text in which $$ is the leader's pid.
 * `release()` on the returned child ends the watcher. The watcher also keeps the group's number from being
 * given to somebody else, so that a signal to the group after the leader's end cannot hit a stranger.
 */
function spawnOnLifeline (argv, { whenLost, cwd, env }) {
  // Started from a subshell that ends at once, the watcher is not a child of `argv`: a program that waits
  // for all of its children does not wait for it.
  const watcher = `trap '' TERM INT HUP; read _ <&3 || { ${whenLost}; }`
  const text = `exec 2>&1; ( ( ${watcher} ) >/dev/null 2>&1 </dev/null & ); exec "$@" 3<&-`
  const child = spawn('/bin/sh', ['-c', text, 'sh'].concat(argv), {
    cwd,
    env,
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore', 'pipe']
  })
  const lifeline = child.stdio[3]
  // The watcher may be gone before it is told.
  lifeline.on('error', () => {})
  lifeline.resume()
  child.release = () => { if (!lifeline.destroyed) lifeline.end('\n', () => lifeline.destroy()) }
  return child
}

/** Send `signal` to the process group of `pid`; nobody there is not an error. */
function signalGroup (pid, signal) {
  // No pid: it could not be started.
  if (!pid) return
  try {
    process.kill(-pid, signal)
  } catch (error) {
    // EPERM: those who are left have ended and wait to be reaped, or became somebody else's.
    if (error.code !== 'ESRCH' && error.code !== 'EPERM') throw error
  }
}

module.exports = { spawnOnLifeline, signalGroup, shellWords }
