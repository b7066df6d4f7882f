// A worker machine in JavaScript, written from docs/worker-protocol.md alone: a test of that page, and an example.
//
//   SLUICE_API_URL=… SLUICE_KEY_FILE=… SLUICE_HOME=… node worker.mjs        (SLUICE_AMQP_CA_FILE, SLUICE_PING_SECONDS)
//
// All but the container is real: it knows the demo's app and computes its result here, and declines any other task.

import { mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import amqp from 'amqplib';
import { Contract, JsonRpcProvider, Wallet, hexlify, keccak256, randomBytes, toUtf8Bytes } from 'ethers';
import JSZip from 'jszip';
import { HUB, refusal, resultDigest, resultHash, resultSeal, signInData, splitArguments } from './protocol.mjs';

const GAS = { contribute: () => 700_000, reveal: () => 150_000, contributeAndFinalize: (data) => 1_000_000 + 500 * data.length };
const [UNSET, ACTIVE, REVEALING, COMPLETED, FAILED, CONTRIBUTED, REVEALED] = [0n, 1n, 2n, 3n, 4n, 1n, 2n];
const JSON_BODY = { 'content-type': 'application/json' };
const now = () => Date.now() / 1000;

// What the demo's app leaves in /iexec_out; undefined for any other task.
function demoApp({ image, params, dataset, index, bot_size }) {
  const { iexec_args: line, iexec_result_storage_provider: _, ...others } = JSON.parse(params);
  if (!image.startsWith('sluice/demo-app:') || dataset || Object.keys(others).length || typeof line !== 'string') return undefined;
  const text = `args: ${splitArguments(line).join(' ')}\ntask index: ${index} of ${bot_size}\n`;
  return { 'computed.json': toUtf8Bytes('{"deterministic-output-path": "/iexec_out/result.txt"}'), 'result.txt': toUtf8Bytes(text) };
}

const { env } = process;
const wallet = new Wallet(readFileSync(env.SLUICE_KEY_FILE, 'utf8').trim());
const me = wallet.address.toLowerCase();
const log = (...words) => console.log(new Date().toISOString(), ...words);

// The journal: one file a task, replaced as a whole.
const [journal, machineFile] = [join(env.SLUICE_HOME, 'journal'), join(env.SLUICE_HOME, 'machine')];
mkdirSync(journal, { recursive: true });
try { writeFileSync(machineFile, hexlify(randomBytes(16)).slice(2), { flag: 'wx' }); } catch { /* made at an earlier start */ }
const machine = readFileSync(machineFile, 'utf8');
const rows = new Map(readdirSync(journal).filter((name) => name.startsWith('0x')).map((task) => [task, JSON.parse(readFileSync(join(journal, task)))]));
function save(row, changes) {
  const task = Object.assign(row, changes).assignment.task_id;
  writeFileSync(join(journal, `new-${task}`), JSON.stringify(row), { flush: true });
  renameSync(join(journal, `new-${task}`), join(journal, task));
  rows.set(task, row);
}

// The pool's API.
let session;
async function api(method, path, body, headers = JSON_BODY) {
  for (let tries = 1, renewed = false; ; tries++) {
    const token = session && { authorization: `Bearer ${session.token}` };
    const answer = await fetch(env.SLUICE_API_URL + path, { method, headers: { ...headers, ...token }, body }).catch(() => null);
    if (answer?.ok) return answer.status === 204 ? null : answer.json();
    if (answer?.status === 401 && session && !renewed) { renewed = true; await signIn(); continue; }
    const passes = !answer || [408, 409, 429].includes(answer.status) || answer.status >= 500;
    const error = `${method} ${path}: ${answer ? `${answer.status} ${await answer.text()}` : 'no answer'}`;
    if (!passes || tries === 8) throw Object.assign(new Error(error), { final: !passes });
    await sleep(Math.max(1000 * Number(answer?.headers.get('retry-after') ?? 0), 200 * 2 ** tries * Math.random()));
  }
}
const post = (path, body, headers) => api('POST', path, JSON.stringify(body), { ...JSON_BODY, ...headers });
async function signIn() {
  session = undefined;
  const { nonce, expires_at } = await post('/workers/challenge', { wallet: me });
  const signature = await wallet.signTypedData(...signInData(pool.chain_id, pool.workerpool, me, nonce, expires_at));
  const capabilities = { name: 'other-worker', version: '1', slots: 1, cpus: 1, memory_bytes: pool.memory_per_slot, tag: `0x${'0'.repeat(64)}` };
  session = await post('/workers/login', { wallet: me, nonce, signature, capabilities, machine }, { 'sluice-protocol': '2' });
}
let reports = Promise.resolve();
const report = (row, step, cause) => (reports = reports.then(() => post(`/tasks/${row.assignment.task_id}/reports`, { step, cause }))
  .catch((error) => log('report lost:', error.message)));
const fail = (row, cause) => { save(row, { stage: 'failed', cause }); return report(row, 'failed', cause); };

const pool = await api('GET', '/config');
const provider = new JsonRpcProvider(pool.rpc_url.split(',')[0], pool.chain_id, { staticNetwork: true, cacheTimeout: -1, pollingInterval: 500 * pool.block_time });
const hub = new Contract(pool.hub, HUB, provider);
const owner = await new Contract(pool.workerpool, ['function owner() view returns (address)'], provider).owner();
if (owner.toLowerCase() !== pool.scheduler || BigInt(await provider.send('eth_chainId', [])) !== BigInt(pool.chain_id)) throw new Error('not this chain\'s pool');

// Transactions: one at a time, their bytes in the journal before they are sent. What a failed one means, the chain says at the next look.
let lane = Promise.resolve();
const send = (row, method, args) => (lane = lane.catch(() => {}).then(async () => {
  if (!row.signed?.[method]) {
    const [data, nonce] = [hub.interface.encodeFunctionData(method, args), await provider.getTransactionCount(me)];
    const { maxFeePerGas, maxPriorityFeePerGas } = await provider.getFeeData();
    const transaction = { type: 2, to: pool.hub, data, nonce, chainId: pool.chain_id, gasLimit: GAS[method](data), maxFeePerGas, maxPriorityFeePerGas };
    save(row, { signed: { ...row.signed, [method]: await wallet.signTransaction(transaction) } });
  }
  await provider.send('eth_sendRawTransaction', [row.signed[method]]).catch((error) => log('sent before?', error.message));
  const receipt = await provider.waitForTransaction(keccak256(row.signed[method]), 1, 60_000);
  if (receipt.status !== 1) save(row, { signed: { ...row.signed, [method]: undefined } });
}));
async function look(row) {
  const [task, at] = [row.assignment.task_id, { blockTag: await provider.getBlockNumber() }];
  return Promise.all([hub.viewTask(task, at), hub.viewContribution(task, me, at)]);
}

function compute(row) {
  const files = demoApp(row.assignment);
  if (!files) return fail(row, 'MACHINE_FAILED: this worker runs the demo\'s app only');
  save(row, { stage: 'computed', digest: resultDigest(JSON.parse(new TextDecoder().decode(files['computed.json'])), files) });
  return report(row, 'computed');
}
async function upload(row) {
  const zip = new JSZip();
  for (const [name, bytes] of Object.entries(demoApp(row.assignment))) zip.file(name, bytes);
  const [path, body] = [`/tasks/${row.assignment.task_id}/result`, await zip.generateAsync({ type: 'uint8array', compression: 'DEFLATE' })];
  const { digest, link } = await api('PUT', path, body, { 'content-type': 'application/zip' });
  if (digest !== row.digest) throw new Error(`the pool read the digest ${digest}`);
  save(row, { link, wanted: false });
}
async function vote(row) {
  const [{ task_id, mode, contribution_deadline, enclave_challenge, authorization }, [task, own]] = [row.assignment, await look(row)];
  if (own.status !== UNSET) { save(row, { stage: 'committed', seen: now() }); return report(row, 'contributed'); }
  if (task.status === UNSET && contribution_deadline > now()) return undefined;
  if (task.status !== ACTIVE || contribution_deadline <= now() || (mode === 'solo' && task.contributors.length)) return fail(row, 'the task takes no more votes');
  const permission = [enclave_challenge, '0x', authorization];
  if (mode === 'vote') return send(row, 'contribute', [task_id, resultHash(task_id, row.digest), resultSeal(me, task_id, row.digest), ...permission]);
  return send(row, 'contributeAndFinalize', [task_id, row.digest, toUtf8Bytes(JSON.stringify(row.link)), '0x', ...permission]);
}
async function reveal(row) {
  const [task, own] = await look(row);
  if (own.status === REVEALED) { save(row, { stage: 'revealed' }); return report(row, 'revealed'); }
  const due = task.status === REVEALING && task.consensus === own.resultHash && own.status === CONTRIBUTED && task.revealDeadline > now();
  return due ? send(row, 'reveal', [row.assignment.task_id, row.digest]) : save(row, { asked: false, seen: now() });
}
const busy = new Set();
async function advance(row) {
  const { task_id, mode } = row.assignment;
  if (busy.has(task_id)) return;
  busy.add(task_id);
  try {
    if (row.stage === 'taken') await compute(row);
    if (row.digest && !row.link && (mode === 'solo' || row.wanted)) await upload(row);
    if (row.stage === 'computed') await vote(row);
    if (row.stage === 'committed' && mode === 'vote' && (row.asked || now() > row.seen + 30)) await reveal(row);
  } catch (error) {
    log('later again, unless final:', task_id, error.message);
    if (error.final) save(row, mode === 'solo' ? { stage: 'failed' } : { wanted: false });
  } finally { busy.delete(task_id); }
}
const note = (task, changes) => rows.has(task) && save(rows.get(task), changes);
const messages = {
  'worker.compute'(it) {
    const known = rows.get(it.task_id);
    if (known && known.stage !== 'aborted') return report(known, known.stage === 'failed' ? 'failed' : 'computed', known.cause);
    const cause = refusal(it, pool, me);
    if (cause) return report({ assignment: it }, 'failed', cause);
    save({ assignment: it, stage: 'taken' });
    return report(rows.get(it.task_id), 'started');
  },
  'worker.upload': (task) => note(task, { wanted: true }),
  'worker.reveal': (task) => note(task, { asked: true }),
  'worker.abort': (task) => !rows.get(task)?.signed && ['taken', 'computed'].includes(rows.get(task)?.stage) && note(task, { stage: 'aborted' }),
};

let [connection, stopped] = [null, false];
async function consume() {
  const { host: hostname, port, tls, vhost, username, password, compute_queue, tx_queue } = session.broker;
  const ca = env.SLUICE_AMQP_CA_FILE && [readFileSync(env.SLUICE_AMQP_CA_FILE)];
  const found = await amqp.connect({ protocol: tls ? 'amqps' : 'amqp', hostname, port, vhost, username, password, heartbeat: 20 }, { ca });
  found.on('error', (error) => log('broker:', error.message)).on('close', () => stopped || connect());
  for (const queue of [compute_queue, tx_queue]) {
    const channel = (await found.createChannel()).on('error', () => found.close());
    await channel.prefetch(2);
    await channel.consume(queue, (message) => {
      if (message === null) return found.close(); // the queue was removed
      try {
        const { contentType, headers } = message.properties;
        if (contentType !== 'application/json' || headers.compression || !Object.hasOwn(messages, headers.task)) throw new Error('of another protocol');
        messages[headers.task](JSON.parse(message.content)[0][0]);
      } catch (error) { log('message refused:', error.message); }
      channel.ack(message);
      return rows.forEach(advance);
    });
  }
  return found;
}
async function connect() {
  for (connection = null; !connection && !stopped; await sleep(500)) connection = await signIn().then(consume).catch((error) => log('not at work:', error.message));
}
async function ping() {
  const { forget, abort, superseded } = await post('/workers/ping', { tasks: [...rows.keys()].slice(0, 1024), machine });
  if (superseded) return stop();
  abort.forEach(messages['worker.abort']);
  for (const row of forget.map((task) => rows.get(task)).filter((found) => found && !busy.has(found.assignment.task_id))) {
    const atStake = row.assignment.mode === 'vote' && row.signed && row.stage !== 'revealed';
    if (atStake && ![COMPLETED, FAILED].includes((await look(row))[0].status)) continue;
    rows.delete(row.assignment.task_id);
    rmSync(join(journal, row.assignment.task_id));
  }
}
function stop() {
  stopped = true;
  return post('/workers/leave', { machine }).catch(() => {}).then(() => process.exit(0));
}
process.on('SIGTERM', stop);
await connect();
log('at work:', me);
setInterval(() => ping().catch((error) => log('ping:', error.message)), 1000 * Number(env.SLUICE_PING_SECONDS ?? 10));
setInterval(() => rows.forEach(advance), 1000 * pool.block_time);
