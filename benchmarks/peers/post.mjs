// What every Node peer does for a job: sign the body as the dispatcher does, POST it, read the answer.
import { createHmac } from "node:crypto";
import { createInterface } from "node:readline";
import { Pool } from "undici";

const BODY = `{"type":"order.created","timestamp":"2026-01-01T00:00:00.000000Z","data":{"order_id":"ORD-2026-1234","note":"${"x".repeat(440)}"}}`;

export const [databaseUrl, targetUrl, jobsText] = process.argv.slice(2);
export const jobs = Number(jobsText);
const target = new URL(targetUrl);
const pool = new Pool(target.origin, { connections: 64, pipelining: 1 });
let left = jobs;
let finished;
export const allDone = new Promise((resolve) => (finished = resolve));

export async function post() {
  const timestamp = Math.floor(Date.now() / 1000);
  const signature = createHmac("sha256", "k".repeat(32)).update(`evt_1.${timestamp}.${BODY}`).digest("base64");
  const answer = await pool.request({
    path: target.pathname,
    method: "POST",
    body: BODY,
    headers: {
      "content-type": "application/json",
      "webhook-id": "evt_1",
      "webhook-timestamp": String(timestamp),
      "webhook-signature": `v1,${signature}`,
    },
  });
  await answer.body.dump();
  if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`);
  if (--left === 0) finished();
}

// Says "ready", waits to be told to go, runs, and says how long it took.
export async function measure(start) {
  process.stdout.write("ready\n");
  await new Promise((resolve) => createInterface({ input: process.stdin }).once("line", resolve));
  const started = performance.now();
  await start();
  await allDone;
  process.stdout.write(JSON.stringify({ seconds: (performance.now() - started) / 1000 }) + "\n");
}
