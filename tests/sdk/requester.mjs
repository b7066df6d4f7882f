// A requester who has the stock iExec SDK and the output of `sluice demo --json`, nothing else: runs one task on the pool.
//
//   node requester.mjs <demo.json> [--args "text"] [--seconds 180] [--until matched|completed|fetched]
//
//   demo.json ──► orders, endpoints            pool (not known here)
//       sign request order ─► matchOrders ────────► deal ─► task
//       obsTask  ◄──────────────────────────────── chain
//       fetchResults ◄───────────────────────────── IPFS gateway
//
// The account is made here and gets native token for gas from the development chain; it owns no RLC and no stake.
// Standard output: one line of JSON {deal_id, task_id, requester, status, messages, files}. Exit 0 when `--until` is reached.

import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { JsonRpcProvider, Wallet, toBeHex } from 'ethers';
import { IExec } from 'iexec';
import JSZip from 'jszip';

const GAS_MONEY = 10n ** 18n;
// The SDK insists on these addresses; a plain order on IPFS never asks them.
const NOT_ASKED = 'http://127.0.0.1:9';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    args: { type: 'string', default: 'hello from the SDK' },
    seconds: { type: 'string', default: '180' },
    until: { type: 'string', default: 'fetched' },
  },
});
if (positionals.length !== 1) {
  console.error('usage: node requester.mjs <demo.json> [--args text] [--seconds n] [--until matched|completed|fetched]');
  process.exit(2);
}

const demo = JSON.parse(await readFile(positionals[0], 'utf8'));

/** A wallet that has native token for gas and nothing else. */
async function newRequester(rpc) {
  // Without the cache: ethers would answer an old nonce for 250 ms after a transaction.
  const provider = new JsonRpcProvider(rpc, undefined, { cacheTimeout: -1, pollingInterval: 100 });
  const wallet = new Wallet(Wallet.createRandom().privateKey, provider);
  await provider.send('anvil_setBalance', [wallet.address, toBeHex(GAS_MONEY)]);
  return wallet;
}

/** The deal of a request for one task at the prices of the offered orders. */
async function match(iexec, { app, workerpool }, args) {
  const request = await iexec.order.createRequestorder({
    app: app.app,
    appmaxprice: app.appprice,
    workerpool: workerpool.workerpool,
    workerpoolmaxprice: workerpool.workerpoolprice,
    category: workerpool.category,
    volume: 1,
    params: { iexec_args: args },
  });
  const requestorder = await iexec.order.signRequestorder(request);
  return iexec.order.matchOrders({ apporder: app, workerpoolorder: workerpool, requestorder });
}

/** Names of the SDK's messages until the task has ended, or an error after so many seconds. */
async function follow(iexec, taskId, dealId, seconds) {
  const messages = [];
  const updates = await iexec.task.obsTask(taskId, { dealid: dealId });
  await new Promise((resolve, reject) => {
    const late = setTimeout(() => {
      unsubscribe();
      reject(new Error(`task ${taskId} has not ended after ${seconds} s`));
    }, seconds * 1000);
    const ended = (finish, value) => {
      clearTimeout(late);
      finish(value);
    };
    const unsubscribe = updates.subscribe({
      next: ({ message }) => messages.push(message),
      error: (error) => ended(reject, error),
      complete: () => ended(resolve),
    });
  });
  return messages;
}

/** Name → text of every file of the result. */
async function fetchFiles(iexec, taskId) {
  const response = await iexec.task.fetchResults(taskId);
  const zip = await JSZip.loadAsync(await response.arrayBuffer());
  const entries = Object.values(zip.files).filter((entry) => !entry.dir);
  return Object.fromEntries(await Promise.all(entries.map(async (entry) => [entry.name, await entry.async('string')])));
}

const requester = await newRequester(demo.endpoints.rpc);
const iexec = new IExec(
  { ethProvider: requester },
  {
    hubAddress: demo.endpoints.hub,
    isNative: false,
    ipfsGatewayURL: demo.endpoints.ipfs_gateway,
    smsURL: NOT_ASKED,
    resultProxyURL: NOT_ASKED,
  },
);
const report = { requester: requester.address.toLowerCase(), status: 'MATCHING', messages: [], files: {} };
const { dealid } = await match(iexec, demo.orders, options.args);
report.deal_id = dealid;
report.task_id = await iexec.deal.computeTaskId(dealid, 0);
report.status = 'MATCHED';
if (options.until !== 'matched') {
  report.messages = await follow(iexec, report.task_id, dealid, Number(options.seconds));
  const { statusName } = await iexec.task.show(report.task_id);
  report.status = statusName;
}
if (options.until === 'fetched' && report.status === 'COMPLETED') {
  report.files = await fetchFiles(iexec, report.task_id);
}
console.log(JSON.stringify(report));
const wanted = options.until === 'matched' ? 'MATCHED' : 'COMPLETED';
process.exit(report.status === wanted ? 0 : 1);
