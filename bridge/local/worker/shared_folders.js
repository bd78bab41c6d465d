'use strict'
// The two folders that jobs share: storage lives as long as the build, a cache as long as the project.

const fs = require('fs')
const path = require('path')

/**
 * The folder behind job.storage or job.cache, made if need be. A cache belongs to one job name of one
 * project and is shared, without a lock, by its builds, as in Brigade.
 */
function folderFor (run, kind) {
  const folder = kind === 'storage' ? path.join(run.build.dir, 'storage') : cacheOf(run)
  fs.mkdirSync(folder, { recursive: true, mode: 0o755 })
  return folder
}

function cacheOf (run) {
  const { build, job, session } = run
  // A durable job that is tried again has another name, not another cache.
  const name = job.cacheName || job.name
  if (build.cacheRoot) return path.join(build.cacheRoot, segment(build.project.id), name)
  session.warnOnce('cache', `job ${job.name}: cache lasts only as long as this build, it was given no place`)
  return path.join(build.dir, 'cache', name)
}

/** `name` as one part of a path, whatever it is. */
function segment (name) {
  return encodeURIComponent(String(name)).replace(/^\.+/, dots => dots.replace(/\./g, '%2E')) || '%00'
}

module.exports = { folderFor }
