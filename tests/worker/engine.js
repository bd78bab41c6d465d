'use strict'
// A stand-in for docker: node engine.js NOTES run … | kill NAME | rm -f NAME. See engine() in harness.js.

const fs = require('fs')
const path = require('path')
const { spawn } = require('child_process')

const [notes, ...argv] = process.argv.slice(2)
const values = flag => argv.filter((_, at) => argv[at - 1] === flag)
fs.appendFileSync(path.join(notes, 'calls'), JSON.stringify({ argv }) + '\n')

function end (name) {
  const file = path.join(notes, `${name}.pid`)
  if (!fs.existsSync(file)) process.exit(1)
  try { process.kill(-Number(fs.readFileSync(file, 'utf8')), 'SIGKILL') } catch (error) {}
}

/** As podman 4.3 at its worst, where another `rm` had begun to stop the container: it forgets it and lets it run. */
function remove (name) {
  const file = path.join(notes, `${name}.pid`)
  if (!fs.existsSync(file)) process.exit(1)
  fs.unlinkSync(file)
}

function run () {
  const [name] = values('--name')
  const [entrypoint] = values('--entrypoint')
  if (argv.includes('no-such-image')) {
    console.error('Unable to find image')
    process.exit(125)
  }
  if (!entrypoint) return console.log('as it is:', argv.join(' '))
  const mounts = values('-v').map(mount => mount.split(':'))
  const at = inside => (mounts.find(mount => mount[1] === inside) || [])[0]
  const env = { PATH: process.env.PATH }
  for (const variable of values('--env')) {
    const [key, ...rest] = variable.split('=')
    env[key] = rest.length > 0 ? rest.join('=') : process.env[key]
  }
  const script = path.join(at('/hook'), 'main.sh')
  const main = argv.indexOf('/hook/main.sh')
  const container = spawn(entrypoint, [script, ...argv.slice(main + 1)], {
    cwd: at(values('-w')[0]) || notes, env, detached: true, stdio: 'inherit'
  })
  fs.writeFileSync(path.join(notes, `${name}.pid`), String(container.pid))
  container.on('exit', code => {
    try { fs.unlinkSync(path.join(notes, `${name}.pid`)) } catch (error) {}
    process.exit(code === null ? 137 : code)
  })
}

if (argv[0] === 'kill') end(argv[1])
else if (argv[0] === 'rm') remove(argv[argv.length - 1])
else run()
