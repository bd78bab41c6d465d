'use strict'

const { checkpoint } = require('./lib/checkpoint')
const { retry } = require('./lib/retry')

module.exports = { checkpoint, retry }
