// The project of the crash tests. What a build may not do twice it writes down first, in the folder that the secret
// `ground` names; there also are the gates, which the tests open.
const fs = require("fs");
const path = require("path");
const { events } = require("brigadier");

const never = () => new Promise((resolve) => setTimeout(resolve, 3600 * 1000));

function on(name, handle) {
  events.on(name, async (e, p) => {
    const branch = path.basename(e.revision.ref);
    const ground = (file) => path.join(p.secrets.ground, file);
    fs.appendFileSync(ground("begun"), `${e.buildID} ${name}\n`);
    await handle(e, {
      there: (word) => fs.existsSync(ground(`${word} ${branch}`)),
      first: () => makes(ground(`first ${name} of ${branch}`)),
    });
  });
}

function makes(folder) {
  try {
    fs.mkdirSync(folder);
  } catch (error) {
    return false;
  }
  return true;
}

async function opened(e, { there }) {
  while (!there("open")) await new Promise((resolve) => setTimeout(resolve, 50));
}

on("build", async () => {});
on("gated", opened);
on("endless", never);
on("flaky", async (e, { first }) => {
  if (first()) throw new Error("fails once");
});
on("broken", async (e, tools) => {
  await opened(e, tools);
  if (!tools.there("mended")) throw new Error("fails until it is mended");
});
on("fragile", async (e, { first }) => {
  if (first()) await never();
});
on("build_failed", async (e, { first }) => {
  if (e.revision.ref.endsWith("/exit-lost") && first()) await never();
});
