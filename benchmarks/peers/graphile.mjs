// Graphile Worker: 64 jobs at once from a local queue of 500, completed in batches.
import { makeWorkerUtils, run, Logger } from "graphile-worker";
import { databaseUrl, jobs, measure, post } from "./post.mjs";

const logger = new Logger(() => () => {});
const utils = await makeWorkerUtils({ connectionString: databaseUrl, logger });
await utils.migrate();
await utils.withPgClient((client) =>
  client.query(
    `SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(
       SELECT json_populate_record(NULL::graphile_worker.job_spec,
                                   json_build_object('identifier', 'post', 'payload', json_build_object('number', g)))
       FROM generate_series(1, $1::int) AS g))`,
    [jobs],
  ),
);
await measure(async () => {
  await run({
    connectionString: databaseUrl,
    logger,
    noHandleSignals: true,
    taskList: { post },
    preset: {
      worker: {
        concurrentJobs: 64,
        maxPoolSize: 10,
        localQueue: { size: 500 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
  });
});
process.stdin.resume();
