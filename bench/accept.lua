-- Signed deliveries, each with an id of its own. BODIES: a Lua file with {body, signature} pairs; UNIQUE: a part of the ids.
local threads = 0
function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

local bodies = dofile(os.getenv("BODIES"))
local unique = os.getenv("UNIQUE")
local n = 0
local headers = { ["Content-Type"] = "application/json", ["X-GitHub-Event"] = "pull_request" }

function request()
  n = n + 1
  local one = bodies[n % #bodies + 1]
  headers["X-Hub-Signature-256"] = one[2]
  headers["X-GitHub-Delivery"] = string.format("%s-%d-%d", unique, id, n)
  return wrk.format("POST", nil, headers, one[1])
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'FIGURES {"per_s": %f, "p50_ms": %f, "p99_ms": %f, "answered": %d, "refused": %d}\n',
    summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.requests, e.status + e.connect + e.read + e.write + e.timeout))
end
