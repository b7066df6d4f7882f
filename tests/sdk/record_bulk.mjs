// A bulk of datasets as SDK 9 makes it, with the files that it puts into IPFS: tests/data/bulk.json.
//
//   node record_bulk.mjs <rpc url> <hub> <IPFS API> <IPFS gateway>      on a development chain with PoCo; prints the JSON
//
// Only the orders' salts differ between two runs on fresh chains.

import { JsonRpcProvider, Wallet, toBeHex } from 'ethers';
import { IExec, utils } from 'iexec9';

const [rpc, hubAddress, ipfsNodeURL, ipfsGatewayURL] = process.argv.slice(2);
const provider = new JsonRpcProvider(rpc, undefined, { cacheTimeout: -1, pollingInterval: 100 });
const wallet = new Wallet(`0x${'01'.repeat(32)}`, provider);
await provider.send('anvil_setBalance', [wallet.address, toBeHex(10n ** 18n)]);
const iexec = new IExec({ ethProvider: wallet }, { hubAddress, ipfsNodeURL, ipfsGatewayURL });

const orders = [];
for (const name of ['first', 'second', 'third']) {
  const entry = { owner: wallet.address, name, multiaddr: `https://data.example/${name}`, checksum: `0x${'11'.repeat(32)}` };
  const { address } = await iexec.dataset.deployDataset(entry);
  const order = await iexec.order.createDatasetorder({ dataset: address, volume: utils.DATASET_INFINITE_VOLUME, tag: ['tee'] });
  orders.push(await iexec.order.signDatasetorder(order, { preflightCheck: false }));
}
const { cid, volume } = await iexec.order.prepareDatasetBulk(orders, { maxDatasetPerTask: 2 });
const read = async (id) => (await fetch(`${ipfsGatewayURL}/ipfs/${id}`)).text();
const list = await read(cid);
const files = { [cid]: list };
for (const slice of JSON.parse(list)) files[slice] = await read(slice);
const chain = Number((await provider.getNetwork()).chainId);
console.log(JSON.stringify({ owner: wallet.address, chain, hub: hubAddress, cid, volume, files }, null, 1));
process.exit(0);
