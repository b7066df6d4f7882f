// Package cipher opens datasets and seals results as iExec's SDK does (8.24 and 9.0.1).
//
//	file   IV (16 bytes), AES-256-CBC of the content with PKCS#7 padding
//	key    32 bytes, as base64
package cipher

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Sizes in bytes.
const (
	KeyBytes = 32
	IVBytes  = aes.BlockSize
	// piece is what is read at a time: whole blocks.
	piece = 1 << 16
)

// ErrFile says that a file was cut, or that its key is another: CBC does not tell which.
var ErrFile = errors.New("the file was cut, or does not open with this key")

// ReadKey is the key behind its base64, white space anywhere allowed. The error does not repeat it.
func ReadKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.Strict().DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil || len(key) != KeyBytes {
		return nil, fmt.Errorf("a key is base64 of %d bytes", KeyBytes)
	}
	return key, nil
}

// Decrypt writes the content of an encrypted file; what was written is of use only if it returns no error.
func Decrypt(to io.Writer, file io.Reader, key []byte) error {
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	source := bufio.NewReaderSize(file, piece)
	iv := make([]byte, IVBytes)
	if _, err := io.ReadFull(source, iv); err != nil {
		return cut(err)
	}
	mode := cipher.NewCBCDecrypter(block, iv)
	// The last block, which has the padding, is known as such only when nothing follows.
	var held []byte
	buffer := make([]byte, piece)
	for {
		count, err := io.ReadFull(source, buffer)
		if count%aes.BlockSize != 0 {
			return ErrFile
		}
		if count > 0 {
			if _, err := to.Write(held); err != nil {
				return err
			}
			mode.CryptBlocks(buffer[:count], buffer[:count])
			last := count - aes.BlockSize
			if _, err := to.Write(buffer[:last]); err != nil {
				return err
			}
			held = append(held[:0], buffer[last:count]...)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return err
		}
	}
	content, err := unpadded(held)
	if err != nil {
		return err
	}
	_, err = to.Write(content)
	return err
}

func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return ErrFile
	}
	return err
}

func unpadded(block []byte) ([]byte, error) {
	if len(block) != aes.BlockSize {
		return nil, ErrFile
	}
	count := int(block[len(block)-1])
	if count < 1 || count > aes.BlockSize {
		return nil, ErrFile
	}
	content, padding := block[:len(block)-count], block[len(block)-count:]
	if !bytes.Equal(padding, bytes.Repeat([]byte{byte(count)}, count)) {
		return nil, ErrFile
	}
	return content, nil
}

// Encrypter encrypts what is written to it; Close writes the padding.
type Encrypter struct {
	to      io.Writer
	mode    cipher.BlockMode
	pending []byte
}

// NewEncrypter writes the IV, which is new and random for each file, and encrypts what follows.
func NewEncrypter(to io.Writer, key, iv []byte) (*Encrypter, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if _, err := to.Write(iv); err != nil {
		return nil, err
	}
	return &Encrypter{to: to, mode: cipher.NewCBCEncrypter(block, iv)}, nil
}

// Write encrypts whole blocks and keeps the rest.
func (e *Encrypter) Write(content []byte) (int, error) {
	e.pending = append(e.pending, content...)
	whole := len(e.pending) / aes.BlockSize * aes.BlockSize
	e.mode.CryptBlocks(e.pending[:whole], e.pending[:whole])
	_, err := e.to.Write(e.pending[:whole])
	e.pending = append(e.pending[:0], e.pending[whole:]...)
	return len(content), err
}

// Close writes the last block.
func (e *Encrypter) Close() error {
	count := aes.BlockSize - len(e.pending)%aes.BlockSize
	_, err := e.Write(bytes.Repeat([]byte{byte(count)}, count))
	return err
}
