package ethereum

// Signer signs what an enclave says of one task on one machine.
type Signer struct {
	key          Key
	task, wallet []byte
}

// NewSigner signs for this task and this worker, both `0x` hex.
func NewSigner(key Key, task, wallet string) (Signer, error) {
	taskBytes, err := Bytes(task, hashBytes)
	if err != nil {
		return Signer{}, err
	}
	walletBytes, err := Bytes(wallet, addressBytes)
	return Signer{key, taskBytes, walletBytes}, err
}

// Session is the signature by which an enclave speaks to its worker.
func (s Signer) Session() string { return s.key.SignMessage(Keccak(s.task, s.wallet)) }

// Result is the signature of a result digest: of result hash and seal, as the contract checks it.
func (s Signer) Result(digest []byte) string {
	hash, seal := Keccak(s.task, digest), Keccak(s.wallet, s.task, digest)
	return s.key.SignMessage(Keccak(hash, seal))
}
