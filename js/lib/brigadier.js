'use strict'
// The script API of the worker that runs this script, under whichever of its names.

const NAMES = ['@brigadecore/brigadier', 'brigadier', 'brigade']

for (const name of NAMES) {
  const found = tried(name)
  // The package of that name on npm declares Job; only a worker's own can run one.
  if (found && found.Job && typeof found.Job.prototype.run === 'function') module.exports = found
}
if (!module.exports.Job) {
  throw new Error('there is no Job that can be run: require this package in a brigade.js that a Brigade v1 worker runs')
}

function tried (name) {
  try {
    return require(name)
  } catch (error) {
    if (error.code === 'MODULE_NOT_FOUND') return null
    throw error
  }
}
