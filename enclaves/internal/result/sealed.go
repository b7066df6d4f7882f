package result

import (
	"archive/zip"
	"crypto/rand"
	"crypto/rsa"
	"io"

	"sluice/enclaves/internal/cipher"
	"sluice/enclaves/internal/failure"
)

// Names in the zip of an encrypted result, which the SDK looks for.
const keyFile, contentFile = "aes-key.rsa", "iexec_out.zip.aes"

// MostContentBytes is the most of an encrypted result that the SDK opens.
const MostContentBytes = 1_000_000_000

// Seal writes the zip that only the holder of this key opens: the result's own zip, encrypted, and its key, which is
// new for each result. content writes that zip.
func Seal[Found any](to io.Writer, public *rsa.PublicKey, content func(io.Writer) (Found, error)) (Found, error) {
	var key, iv = make([]byte, cipher.KeyBytes), make([]byte, cipher.IVBytes)
	// Since Go 1.24 neither fails: the process ends instead.
	rand.Read(key)
	rand.Read(iv)
	return SealWith(to, public, key, iv, content)
}

// SealWith is Seal with a key and an IV of the caller's.
func SealWith[Found any](
	to io.Writer, public *rsa.PublicKey, key, iv []byte, content func(io.Writer) (Found, error),
) (found Found, err error) {
	wrapped, err := cipher.Wrap(public, key)
	if err != nil {
		return found, failure.New(failure.PostEncryption, "the result's key cannot be encrypted: %v", err)
	}
	archive := zip.NewWriter(to)
	entry, err := archive.CreateHeader(header(keyFile, zip.Store))
	if err == nil {
		_, err = entry.Write(wrapped)
	}
	if err == nil {
		entry, err = archive.CreateHeader(header(contentFile, zip.Store))
	}
	if err != nil {
		return found, err
	}
	bounded := &bounded{to: entry, left: MostContentBytes}
	encrypter, err := cipher.NewEncrypter(bounded, key, iv)
	if err != nil {
		return found, err
	}
	if found, err = content(encrypter); err != nil {
		return found, err
	}
	if err = encrypter.Close(); err != nil {
		return found, err
	}
	return found, archive.Close()
}

// bounded refuses what is more than a beneficiary's SDK decrypts.
type bounded struct {
	to   io.Writer
	left int
}

func (b *bounded) Write(content []byte) (int, error) {
	if b.left -= len(content); b.left < 0 {
		return 0, failure.New(failure.PostEncryption, "the result has more than the %d bytes that its beneficiary can decrypt", MostContentBytes)
	}
	return b.to.Write(content)
}
