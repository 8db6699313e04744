// pg-boss: eight workers, batches of 500, the jobs of a batch posted together.
import PgBoss from "pg-boss";
import { databaseUrl, jobs, measure, post } from "./post.mjs";

const boss = new PgBoss({ connectionString: databaseUrl, max: 10 });
boss.on("error", (error) => console.error(error));
await boss.start();
await boss.createQueue("post");
for (let first = 0; first < jobs; first += 1000) {
  const count = Math.min(1000, jobs - first);
  await boss.insert(Array.from({ length: count }, (_, n) => ({ name: "post", data: { number: first + n } })));
}
await measure(async () => {
  for (let worker = 0; worker < 8; worker++) {
    await boss.work("post", { batchSize: 500, pollingIntervalSeconds: 0.5 }, (batch) => Promise.all(batch.map(post)));
  }
});
process.stdin.resume();
