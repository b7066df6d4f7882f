package ethereum

import (
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"
)

// Sizes in bytes.
const (
	hashBytes    = 32
	addressBytes = 20
)

// Keccak is the keccak256 of all parts, one after the other.
func Keccak(parts ...[]byte) []byte {
	state := sha3.NewLegacyKeccak256()
	for _, part := range parts {
		state.Write(part)
	}
	return state.Sum(nil)
}

// Key is the private key of a task's challenge.
type Key struct{ private *secp256k1.PrivateKey }

// ReadKey is the key behind `0x` hex. The error does not repeat it.
func ReadKey(text string) (Key, error) {
	bytes, err := Bytes(text, hashBytes)
	if err != nil {
		return Key{}, fmt.Errorf("a private key is 32 bytes of hex")
	}
	var scalar secp256k1.ModNScalar
	if scalar.SetByteSlice(bytes) || scalar.IsZero() {
		return Key{}, fmt.Errorf("no key of the curve secp256k1")
	}
	return Key{secp256k1.NewPrivateKey(&scalar)}, nil
}

// SignMessage is the signature of a 32-byte hash with EIP-191's prefix: `0x` hex of r, s and v (27 or 28).
func (k Key) SignMessage(hash []byte) string {
	signed := Keccak([]byte("\x19Ethereum Signed Message:\n32"), hash)
	compact := ecdsa.SignCompact(k.private, signed, false)
	// The library has v first.
	return Hex(append(compact[1:], compact[0]))
}
