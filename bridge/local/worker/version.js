'use strict'
// The brigade-worker whose script API this worker speaks.
module.exports = '1.2.1 (bridge, one machine)'
