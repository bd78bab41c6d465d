// The project of the crash tests. What a build may not do twice it writes down first, in the folder that the secret
// `ground` names; there it also finds what the tests tell it.
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

async function told(word, { there }) {
  while (!there(word)) await new Promise((resolve) => setTimeout(resolve, 50));
}

on("build", async () => {});
on("gated", (e, tools) => told("go on", tools));
on("endless", never);
on("flaky", async (e, { first }) => {
  if (first()) throw new Error("fails once");
});
on("broken", async (e, tools) => {
  await told("go on", tools);
  if (!tools.there("mended")) throw new Error("fails until it is mended");
});
on("fragile", async (e, { first }) => {
  if (first()) await never();
});
on("build_failed", async (e, tools) => {
  if (e.revision.ref.endsWith("/exit-lost") && tools.first()) await never();
  await told("exit", tools);
});
