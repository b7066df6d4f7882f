// The requests by which both SDKs look for secrets, store and change them, as they go over the wire: tests/data/sms-requests.json.
//
//   node record_secrets.mjs <rpc url> <hub>      on a development chain with PoCo; prints the JSON
//
// Wallet and values are fixed, signatures deterministic (RFC 6979) and addresses made of content (CREATE2), so that two
// runs on fresh chains print the same.

import { JsonRpcProvider, Wallet, toBeHex } from 'ethers';

const [rpc, hubAddress] = process.argv.slice(2);
const provider = new JsonRpcProvider(rpc, undefined, { cacheTimeout: -1, pollingInterval: 100 });
const wallet = new Wallet(`0x${'01'.repeat(32)}`, provider);
await provider.send('anvil_setBalance', [wallet.address, toBeHex(10n ** 18n)]);
const checksum = `0x${'11'.repeat(32)}`;
let dataset, app;

let there = false;
let requests = [];
globalThis.fetch = async (url, { method, headers = {}, body }) => {
  const { pathname, search } = new URL(url);
  requests.push({ method, path: pathname + search, headers, body: body ?? null });
  return new Response(null, { status: method === 'HEAD' && !there ? 404 : 204 });
};

const found = {};
for (const [version, name] of [['8.24.0', 'iexec'], ['9.0.1', 'iexec9']]) {
  const { IExec } = await import(name);
  // Its own URL for each: the SDK remembers what exists at one.
  const options = { hubAddress, smsURL: `http://${name}.example` };
  const iexec = new IExec({ ethProvider: wallet }, version.startsWith('8') ? { ...options, isNative: false } : options);
  if (!app) {
    const entry = { owner: wallet.address, name: 'recorded', multiaddr: 'registry.example/app:1', checksum };
    app = (await iexec.app.deployApp({ ...entry, type: 'DOCKER' })).address;
    dataset = (await iexec.dataset.deployDataset(entry)).address;
  }
  requests = [];
  there = false;
  await iexec.dataset.checkDatasetSecretExists(dataset);
  await iexec.app.checkAppSecretExists(app);
  await iexec.dataset.pushDatasetSecret(dataset, 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=');
  await iexec.app.pushAppSecret(app, 'the developer\u2019s');
  await iexec.secrets.pushRequesterSecret('my-secret_1', 'the requester\u2019s');
  await iexec.result.pushResultEncryptionKey('TUlJQg==');
  there = true;
  await iexec.result.pushResultEncryptionKey('TUlJQg==2', { forceUpdate: true });
  found[version] = requests;
}
console.log(JSON.stringify({ wallet: wallet.address, dataset, app, requests: found }, null, 1));
process.exit(0);
