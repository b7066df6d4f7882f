// Compares protocol.mjs with the test vectors of docs/worker-protocol.md:  node vectors.mjs <page>

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Interface, TypedDataEncoder, Wallet, sha256, toUtf8Bytes } from 'ethers';
import { HUB, authorizationHash, refusal, resultDigest, resultHash, resultSeal, signInData, signedText, splitArguments } from './protocol.mjs';

const page = readFileSync(process.argv[2], 'utf8').split('\n## Test vectors\n')[1];
const { wallets, sign_in, assignment, vote, calldata, results, errors, arguments: lines, input_file } = JSON.parse(page.split('```')[1]);
const worker = new Wallet(`0x${'11'.repeat(32)}`);
assert.equal(worker.address.toLowerCase(), wallets.worker);

const { domain, message } = sign_in.typed_data;
const data = signInData(domain.chainId, domain.verifyingContract, wallets.worker, message.nonce, message.expiresAt);
assert.equal(TypedDataEncoder.hash(...data), sign_in.eip712_digest);
assert.equal(await worker.signTypedData(...data), sign_in.signature);

const { chain_id, workerpool, assignment: it, signed_text, authorization_hash } = assignment;
const pool = { chain_id, workerpool, scheduler: wallets.scheduler };
assert.equal(signedText(it, chain_id, workerpool), signed_text);
assert.equal(authorizationHash(it), authorization_hash);
assert.equal(refusal(it, pool, wallets.worker), undefined);
for (const changed of [{ image: 'other' }, { dataset: null }, { index: 4 }, { signature: null }, { wallet: wallets.scheduler }]) {
  assert.equal(refusal({ ...it, ...changed }, pool, wallets.worker), 'WORKERPOOL_AUTHORIZATION_NOT_FOUND');
}

assert.equal(resultHash(vote.task_id, vote.digest), vote.result_hash);
assert.equal(resultSeal(wallets.worker, vote.task_id, vote.digest), vote.result_seal);
const [hub, permission] = [new Interface(HUB), [it.enclave_challenge, '0x', it.authorization]];
assert.equal(hub.encodeFunctionData('contribute', [vote.task_id, vote.result_hash, vote.result_seal, ...permission]), calldata.contribute);
assert.equal(hub.encodeFunctionData('reveal', [vote.task_id, vote.digest]), calldata.reveal);
const solo = [vote.task_id, vote.digest, calldata.results, '0x', ...permission];
assert.equal(hub.encodeFunctionData('contributeAndFinalize', solo), calldata.contributeAndFinalize);

const files = Object.fromEntries(Object.entries(results.files).map(([path, content]) => [path, toUtf8Bytes(content)]));
for (const { computed, digest } of results.digests) {
  if (computed['callback-data']?.length % 2) continue; // only Java reads an odd number of digits
  assert.equal(resultDigest(computed, files), digest, JSON.stringify(computed));
}
for (const { text, digest } of errors) assert.equal(sha256(toUtf8Bytes(text)), digest);
for (const { line, arguments: words } of lines) assert.deepEqual(splitArguments(line), words);
assert.equal(sha256(toUtf8Bytes(input_file.url)), input_file.name);
