// What docs/worker-protocol.md says how to compute, without side effects; vectors.mjs compares it with the page's test vectors.

import { concat, getBytes, keccak256, sha256, toUtf8Bytes, verifyMessage } from 'ethers';

const TASK = 'uint8 status, bytes32 deal, uint256 index, uint256 timeref, uint256 contributionDeadline, uint256 revealDeadline, uint256 finalDeadline,'
  + ' bytes32 consensus, uint256 revealCounter, uint256 winnerCounter, address[] contributors, bytes32 digest, bytes results, uint256 at, bytes callback';
export const HUB = [
  'function contribute(bytes32,bytes32,bytes32,address,bytes,bytes)',
  'function reveal(bytes32,bytes32)',
  'function contributeAndFinalize(bytes32,bytes32,bytes,bytes,address,bytes,bytes)',
  `function viewTask(bytes32) view returns ((${TASK}))`,
  'function viewContribution(bytes32,address) view returns ((uint8 status, bytes32 resultHash, bytes32 seal, address enclave, uint256 weight))',
];

const sorted = (_, item) => (item?.constructor === Object ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1))) : item);
export const signedText = ({ signature, ...fields }, chain, workerpool) =>
  `Sluice assignment\nchain ${chain}\nworkerpool ${workerpool}\n${keccak256(toUtf8Bytes(JSON.stringify(fields, sorted)))}`;
export const authorizationHash = (it) => keccak256(concat([it.wallet, it.task_id, it.enclave_challenge]));
export const resultHash = (task, digest) => keccak256(concat([task, digest]));
export const resultSeal = (wallet, task, digest) => keccak256(concat([wallet, task, digest]));
export const signInData = (chainId, verifyingContract, wallet, nonce, expiresAt) => [
  { name: 'Sluice', version: '1', chainId, verifyingContract },
  { SignIn: [{ name: 'wallet', type: 'address' }, { name: 'nonce', type: 'bytes32' }, { name: 'expiresAt', type: 'uint256' }] },
  { wallet, nonce, expiresAt },
];

/** The cause for which an assignment is declined; undefined if it may be taken. */
export function refusal(it, { chain_id, workerpool, scheduler }, wallet) {
  const signed = (text, signature) => { try { return verifyMessage(text, signature).toLowerCase() === scheduler; } catch { return false; } };
  if (!signed(signedText(it, chain_id, workerpool), it.signature) || it.wallet !== wallet) return 'WORKERPOOL_AUTHORIZATION_NOT_FOUND';
  if (it.contribution_deadline <= Date.now() / 1000) return 'CONTRIBUTION_TIMEOUT';
  return signed(getBytes(authorizationHash(it)), it.authorization) ? undefined : 'WORKERPOOL_AUTHORIZATION_NOT_FOUND';
}

export function splitArguments(line) {
  let [found, word, quote, escaped] = [[], '', '', false];
  for (const letter of line) {
    if (letter === quote && !escaped) quote = '';
    else if (!quote && !escaped && `'"`.includes(letter)) quote = letter;
    else if (!quote && letter === ' ') { found.push(word); word = ''; } else { word += letter; escaped = letter === '\\'; }
  }
  return quote ? [] : [...found, word].filter(Boolean);
}

/** `files`: bytes by path below /iexec_out. Undefined if there is no result where `computed` says. */
export function resultDigest(computed, files) {
  if ('callback-data' in computed) return keccak256(computed['callback-data']);
  const path = computed['deterministic-output-path'].replace(/^\/iexec_out\/?/, '');
  if (files[path]) return sha256(files[path]);
  const inside = Object.keys(files).filter((name) => name.slice(0, Math.max(0, name.lastIndexOf('/'))) === path).sort();
  return inside.length ? keccak256(concat(inside.map((name) => sha256(files[name])))) : undefined;
}
