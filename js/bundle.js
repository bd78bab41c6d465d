'use strict'
// The whole package as one file, for repositories that take nothing from a registry: node bundle.js > durable.js

const fs = require('fs')
const path = require('path')

const FOLDER = __dirname

/** The text of a module that exports what index.js exports. */
function bundle () {
  const { name, version, license } = require('./package.json')
  const files = ['index.js'].concat(fs.readdirSync(path.join(FOLDER, 'lib')).sort().map(file => `lib/${file}`))
  const modules = files.map(file => {
    const text = fs.readFileSync(path.join(FOLDER, file), 'utf8').replace(/^'use strict'\n+/, '').trimEnd()
    return `modules[${JSON.stringify(file)}] = (module, exports, require) => {\n${text}\n}\n`
  })
  return `'use strict'
// ${name} ${version} in one file (${license}), made by js/bundle.js. Do not change it: make it anew.
/* eslint-disable */

const outside = require
const modules = {}
const loaded = {}

function load (file) {
  if (!loaded[file]) {
    loaded[file] = { exports: {} }
    modules[file](loaded[file], loaded[file].exports, name =>
      name[0] === '.' ? load('lib/' + name.replace(/^(\\.\\/)(lib\\/)?/, '') + '.js') : outside(name))
  }
  return loaded[file].exports
}

${modules.join('\n')}
module.exports = load('index.js')
`
}

module.exports = { bundle }
if (require.main === module) process.stdout.write(bundle())
