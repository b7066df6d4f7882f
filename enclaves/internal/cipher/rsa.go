package cipher

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
)

// Bits of a beneficiary's key: fewer are broken, more encrypt to a file that the SDK does not open.
const leastBits, mostBits = 2048, 8000

var errPublicKey = errors.New("a result's encryption key is base64 of an RSA public key of 2048 to 8000 bits in PEM")

// ReadPublicKey is the beneficiary's key behind its base64, white space anywhere allowed.
func ReadPublicKey(text string) (*rsa.PublicKey, error) {
	content, err := base64.StdEncoding.Strict().DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, errPublicKey
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, errPublicKey
	}
	found, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errPublicKey
	}
	key, isRSA := found.(*rsa.PublicKey)
	if !isRSA || key.N.BitLen() < leastBits || key.N.BitLen() > mostBits {
		return nil, errPublicKey
	}
	return key, nil
}

// Wrap is an AES key for the holder of this key. PKCS #1 v1.5 is what the SDK opens.
func Wrap(public *rsa.PublicKey, key []byte) ([]byte, error) {
	return rsa.EncryptPKCS1v15(rand.Reader, public, key)
}
