// Package ethereum has what PoCo needs of Ethereum: hex as Java reads it, keccak, and signatures.
package ethereum

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Bytes are the size bytes behind `0x` hex.
func Bytes(text string, size int) ([]byte, error) {
	found, err := hex.DecodeString(strings.TrimPrefix(text, "0x"))
	if err != nil || len(found) != size {
		return nil, fmt.Errorf("not %d bytes of hex", size)
	}
	return found, nil
}

// Hex is the `0x` hex of bytes.
func Hex(value []byte) string { return "0x" + hex.EncodeToString(value) }

// BytesLeniently are the bytes of text as iExec's Java reads hex: what is no digit counts as -1, and the first digit of
// an odd number is a byte of its own.
func BytesLeniently(text string) []byte {
	digits := utf16Digits(strings.TrimPrefix(text, "0x"))
	found := make([]byte, 0, (len(digits)+1)/2)
	if len(digits)%2 == 1 {
		found, digits = append(found, byte(digits[0])), digits[1:]
	}
	for at := 0; at < len(digits); at += 2 {
		found = append(found, byte(digits[at]<<4+digits[at+1]))
	}
	return found
}

// utf16Digits are the values of a text's UTF-16 code units, which Java counts by.
func utf16Digits(text string) []int {
	var found []int
	for _, character := range text {
		found = append(found, digit(character))
		if character > 0xffff {
			found = append(found, -1)
		}
	}
	return found
}

func digit(character rune) int {
	switch {
	case '0' <= character && character <= '9':
		return int(character - '0')
	case 'a' <= character && character <= 'f':
		return int(character-'a') + 10
	case 'A' <= character && character <= 'F':
		return int(character-'A') + 10
	}
	return -1
}
