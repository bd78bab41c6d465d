// The pipeline of acme/widgets, split into one event a step: pipelines/ says in which order they run, and bridge
// runs each of them again on its own when it fails.
const { events, Job } = require("brigadier");

function script(name, e, path) {
  const job = new Job(name, "alpine:3.20", ["cd /src", `sh ${path}`]);
  // What the job prints goes into the build's log, and with it to wherever a failure is shown.
  job.streamLogs = true;
  const pull = JSON.parse(e.payload || "{}").pull_request;
  // What comes from outside goes into the environment, never into a task's text.
  job.env = { COMMIT: e.revision.commit, BRANCH: pull ? pull.head.ref : e.revision.ref };
  return job;
}

events.on("build", (e) => script("build", e, "build.sh").run());
events.on("lint", (e) => script("lint", e, "lint.sh").run());
events.on("package", (e) => script("package", e, "package.sh").run());
events.on("deploy", (e) => script("deploy", e, "deploy.sh").run());

events.on("unit-test", (e) => {
  const job = script("unit-test", e, "test/unit.sh");
  job.cache.enabled = true;
  return job.run();
});

// Fired once for each attempt that failed, whatever made it fail: bridge adds `bridge` to the event's payload.
events.on("build_failed", (e) => {
  const { bridge } = JSON.parse(e.payload);
  for (const failure of bridge.failures) {
    console.log(`${bridge.run}, attempt ${bridge.attempt}: ${failure.step}: ${failure.message}`);
  }
});
