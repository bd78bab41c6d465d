'use strict'
// Copies and writes that another process may look at while they happen.

const fs = require('fs')
const path = require('path')

/** Write `value` as JSON so that a reader sees the old file or the new one, never a part. */
function writeJson (file, value) {
  const half = `${file}.${process.pid}.tmp`
  fs.writeFileSync(half, JSON.stringify(value, null, 2) + '\n', { mode: 0o600 })
  fs.renameSync(half, file)
}

/**
 * Copy the folder `from` to `to` with symbolic links as they are, and modes as `modeOf` makes them of the
 * originals' (fs.cp is younger than Node 14). The folder `without`, which the copy may be in, is left out; so are
 * sockets, pipes and devices.
 */
async function copyTree (from, to, without, modeOf) {
  const { mode } = await fs.promises.stat(from)
  // Writable while it is filled, even where the original is not.
  await fs.promises.mkdir(to, { recursive: true, mode: 0o700 })
  for (const entry of await fs.promises.readdir(from, { withFileTypes: true })) {
    const source = path.join(from, entry.name)
    const target = path.join(to, entry.name)
    if (source === without) continue
    if (entry.isDirectory()) await copyTree(source, target, without, modeOf)
    else if (entry.isSymbolicLink()) await fs.promises.symlink(await fs.promises.readlink(source), target)
    else if (entry.isFile()) await copyFile(source, target, modeOf)
  }
  await fs.promises.chmod(to, modeOf(mode & 0o7777, true))
}

async function copyFile (source, target, modeOf) {
  await fs.promises.copyFile(source, target, fs.constants.COPYFILE_FICLONE)
  const { mode } = await fs.promises.stat(source)
  await fs.promises.chmod(target, modeOf(mode & 0o7777, false))
}

/** The last `most` bytes of a file as text; a file that is not there is empty. */
function tailOf (file, most) {
  let handle
  try {
    handle = fs.openSync(file, 'r')
  } catch (error) {
    if (error.code === 'ENOENT') return ''
    throw error
  }
  try {
    const size = fs.fstatSync(handle).size
    const tail = Buffer.alloc(Math.min(size, most))
    const read = fs.readSync(handle, tail, 0, tail.length, size - tail.length)
    return tail.toString('utf8', 0, read)
  } finally {
    fs.closeSync(handle)
  }
}

module.exports = { writeJson, copyTree, tailOf }
