// One long script: when its worker dies or a job fails, the next build of the same step skips what was finished.
const { events, Group } = require("brigadier");
const { DurableJob, checkpoint } = require("./durable");

const IMAGE = "alpine:3.20";

events.on("push", async (e) => {
  // What is no job: kept as JSON, so the release has one number however many builds it takes.
  const release = await checkpoint("release", () => ({ number: Date.now() }));

  const build = new DurableJob("build", IMAGE, ["echo building", "sleep 1"]);
  build.env.COMMIT = e.revision.commit;
  await build.run();

  // Fails now and then, as tests do.
  const test = new DurableJob("test", IMAGE, ["echo testing", "sleep 1"], { attempts: 3, backoff: 2000 });
  const lint = new DurableJob("lint", IMAGE, ["echo linting"]);
  await Group.runAll([test, lint]);

  const pack = new DurableJob("package", IMAGE, [`echo packaging release ${release.number}`]);
  // The log of a job that was skipped is the log it had.
  console.log(`${await pack.run()}`.trim());
});
