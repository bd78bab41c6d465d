'use strict'

const { checkpoint } = require('./lib/checkpoint')
const { emit } = require('./lib/emit')
const { retry } = require('./lib/retry')

module.exports = {
  checkpoint,
  emit,
  retry,
  // Only a worker's own Job can be extended; the rest works without.
  get DurableJob () { return require('./lib/durable_job').DurableJob }
}
