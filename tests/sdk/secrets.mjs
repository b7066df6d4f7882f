// Owner and requester with a stock iExec SDK, 8 or 9, whose secrets go to a secret service. Nothing of Sluice is known here.
//
//   node secrets.mjs <world.json>      {sdk: "8" | "9", rpc, hub, sms, folder, requester?: its key, ipfs_gateway?, workerpool?: an order, image?, dataset_url?, args?, volume?,
//                                       bulk?: {ipfs_api, workerpool: an order, url: of <folder>, rows: [text], per_task, args}}
//
//   deploy app and dataset ─► encrypt the dataset to <folder>/dataset.aes ─► push all kinds of secrets, check that they are there
//   a stranger, a second push, one too large ─► what the SDK says
//   with a workerpool's order: match a confidential task, follow it, fetch and decrypt the result
//   with a bulk (SDK 9): a dataset of each text, in slices of so many; match, follow each task, fetch and decrypt
//
// Standard output: one line of JSON {app, dataset, requester, key, refused, exists, updated, files?, bulk?: {keys, files: [of a task]}}.

import { generateKeyPairSync } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { JsonRpcProvider, Wallet, toBeHex } from 'ethers';
import JSZip from 'jszip';

const GAS_MONEY = 10n ** 18n;
const world = JSON.parse(await readFile(process.argv[2], 'utf8'));
const { IExec, utils } = await import(world.sdk === '9' ? 'iexec9' : 'iexec');

// Without the cache: ethers would answer an old nonce for 250 ms after a transaction.
const provider = new JsonRpcProvider(world.rpc, undefined, { cacheTimeout: -1, pollingInterval: 100 });

/** The SDK as a wallet that has gas money; without a key, a new one that has nothing else. */
async function newcomer(key = Wallet.createRandom().privateKey) {
  const wallet = new Wallet(key, provider);
  await provider.send('anvil_setBalance', [wallet.address, toBeHex(GAS_MONEY)]);
  const options = { hubAddress: world.hub, smsURL: world.sms, ipfsGatewayURL: world.ipfs_gateway ?? world.sms };
  if (world.bulk) options.ipfsNodeURL = world.bulk.ipfs_api;
  if (world.sdk === '8') Object.assign(options, { isNative: false, resultProxyURL: world.sms });
  return { address: wallet.address, iexec: new IExec({ ethProvider: wallet }, options) };
}

/** What the SDK says when it is refused; fails if it is not. */
async function refusal(attempt) {
  try {
    await attempt();
  } catch (error) {
    return error.message;
  }
  throw new Error('it was not refused');
}

const owner = await newcomer();
const requester = await newcomer(world.requester);
const stranger = await newcomer();
const report = { requester: requester.address.toLowerCase() };

report.key = owner.iexec.dataset.generateEncryptionKey();
const encrypted = await owner.iexec.dataset.encrypt(Buffer.from(world.dataset), report.key);
await writeFile(`${world.folder}/dataset.aes`, encrypted);
const checksum = await owner.iexec.dataset.computeEncryptedFileChecksum(encrypted);
const multiaddr = world.dataset_url ?? 'https://data.example/dataset.aes';
const { address: dataset } = await owner.iexec.dataset.deployDataset({ owner: owner.address, name: 'data', multiaddr, checksum });
const { address: app } = await owner.iexec.app.deployApp({
  owner: owner.address,
  name: 'app',
  type: 'DOCKER',
  multiaddr: world.image ?? 'registry.example/app:1.0.0',
  checksum: `0x${'11'.repeat(32)}`,
});
Object.assign(report, { app: app.toLowerCase(), dataset: dataset.toLowerCase() });

const { publicKey, privateKey } = generateKeyPairSync('rsa', {
  modulusLength: 2048,
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
});
report.refused = {
  stranger: await refusal(() => stranger.iexec.dataset.pushDatasetSecret(dataset, report.key)),
  large: await refusal(() => requester.iexec.secrets.pushRequesterSecret('large', 'x'.repeat(4097))),
};
const before = await owner.iexec.app.checkAppSecretExists(app);
await owner.iexec.dataset.pushDatasetSecret(dataset, report.key);
await owner.iexec.app.pushAppSecret(app, world.app_secret);
await requester.iexec.secrets.pushRequesterSecret('mine', world.requester_secret);
const first = await requester.iexec.result.pushResultEncryptionKey('old');
const second = await requester.iexec.result.pushResultEncryptionKey(publicKey, { forceUpdate: true });
report.updated = [before, first.isUpdated, second.isUpdated];
Object.assign(report.refused, {
  dataset: await refusal(() => owner.iexec.dataset.pushDatasetSecret(dataset, 'another')),
  app: await refusal(() => owner.iexec.app.pushAppSecret(app, 'another')),
  requester: await refusal(() => requester.iexec.secrets.pushRequesterSecret('mine', 'another')),
});
report.exists = [
  await requester.iexec.dataset.checkDatasetSecretExists(dataset),
  await requester.iexec.app.checkAppSecretExists(app),
  await owner.iexec.secrets.checkRequesterSecretExists(requester.address, 'mine'),
  await owner.iexec.result.checkResultEncryptionKeyExists(requester.address),
  await owner.iexec.secrets.checkRequesterSecretExists(requester.address, 'another'),
];

const tag = world.sdk === '9' ? undefined : ['tee', 'tdx'];

/** A dataset's order for so many tasks, signed by its owner. */
async function offer(address, volume) {
  return owner.iexec.order.signDatasetorder(await owner.iexec.order.createDatasetorder({ dataset: address, volume, tag }));
}

/** A confidential deal of so many tasks, whose results are encrypted; `dataset`: with its order, or none. */
async function deal(workerpoolorder, volume, params, given = {}) {
  const apporder = await owner.iexec.order.signApporder(await owner.iexec.order.createApporder({ app, volume, tag }));
  const request = await requester.iexec.order.createRequestorder({
    app,
    ...(given.datasetorder && { dataset: given.datasetorder.dataset }),
    workerpool: workerpoolorder.workerpool,
    workerpoolmaxprice: workerpoolorder.workerpoolprice,
    category: workerpoolorder.category,
    volume,
    tag,
    params: { iexec_result_encryption: true, ...params },
  });
  const requestorder = await requester.iexec.order.signRequestorder(request);
  const { dealid } = await requester.iexec.order.matchOrders({ apporder, workerpoolorder, requestorder, ...given });
  return dealid;
}

/** The files of one task of a deal, decrypted. */
async function result(dealid, index) {
  const taskid = await requester.iexec.deal.computeTaskId(dealid, index);
  const updates = await requester.iexec.task.obsTask(taskid, { dealid });
  await new Promise((complete, error) => updates.subscribe({ next: () => {}, complete, error }));
  const response = await requester.iexec.task.fetchResults(taskid);
  const content = await utils.decryptResult(await response.arrayBuffer(), privateKey);
  const zip = await JSZip.loadAsync(content);
  return Object.fromEntries(await Promise.all(Object.values(zip.files).map(async (file) => [file.name, await file.async('string')])));
}

/** The files of each task of a bulk, decrypted. */
async function runBulk({ workerpool, url, rows, per_task: maxDatasetPerTask, args }) {
  const orders = [], keys = [];
  for (const [number, text] of rows.entries()) {
    const key = owner.iexec.dataset.generateEncryptionKey();
    const file = await owner.iexec.dataset.encrypt(Buffer.from(text), key);
    await writeFile(`${world.folder}/rows-${number}.aes`, file);
    const { address } = await owner.iexec.dataset.deployDataset({
      owner: owner.address,
      name: `rows ${number}`,
      multiaddr: `${url}/rows-${number}.aes`,
      checksum: await owner.iexec.dataset.computeEncryptedFileChecksum(file),
    });
    await owner.iexec.dataset.pushDatasetSecret(address, key);
    orders.push(await offer(address, utils.DATASET_INFINITE_VOLUME));
    keys.push(key);
  }
  const { cid, volume } = await requester.iexec.order.prepareDatasetBulk(orders, { maxDatasetPerTask });
  const dealid = await deal(workerpool, volume, { bulk_cid: cid, iexec_args: args });
  const files = [];
  for (let index = 0; index < volume; index += 1) files.push(await result(dealid, index));
  return { keys, files };
}

if (world.workerpool) {
  const volume = world.volume ?? 1;
  const params = { iexec_secrets: { 1: 'mine' }, ...(world.args && { iexec_args: world.args }) };
  const dealid = await deal(world.workerpool, volume, params, { datasetorder: await offer(dataset, volume) });
  report.files = await result(dealid, 0);
  // The service may be killed until then, and the SDK asks it once.
  if (world.bulk) await result(dealid, volume - 1);
}
if (world.bulk) report.bulk = await runBulk(world.bulk);
console.log(JSON.stringify(report));
process.exit(0);
