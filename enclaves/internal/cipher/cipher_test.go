package cipher

import (
	"bytes"
	"encoding/base64"
	"testing"
)

func encrypted(t *testing.T, content, key, iv []byte) []byte {
	t.Helper()
	var made bytes.Buffer
	encrypter, err := NewEncrypter(&made, key, iv)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range [][]byte{content[:len(content)/3], content[len(content)/3:]} {
		if _, err := encrypter.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := encrypter.Close(); err != nil {
		t.Fatal(err)
	}
	return made.Bytes()
}

func TestFilesOfEachLengthAroundABlocksAndAPiecesEndOpenAgain(t *testing.T) {
	key, iv := bytes.Repeat([]byte{7}, KeyBytes), bytes.Repeat([]byte{9}, IVBytes)
	for _, size := range []int{0, 1, 15, 16, 17, 31, 32, 33, piece - 17, piece - 16, piece - 1, piece, piece + 1, 3 * piece} {
		content := bytes.Repeat([]byte{byte(size)}, size)
		var opened bytes.Buffer
		if err := Decrypt(&opened, bytes.NewReader(encrypted(t, content, key, iv)), key); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		if !bytes.Equal(opened.Bytes(), content) {
			t.Errorf("%d bytes are others afterwards", size)
		}
	}
}

func TestAFileThatWasCutOrHasAnotherKeyDoesNotOpen(t *testing.T) {
	key, other := bytes.Repeat([]byte{7}, KeyBytes), make([]byte, KeyBytes)
	whole := encrypted(t, bytes.Repeat([]byte("a dataset"), 10), key, make([]byte, IVBytes))
	for name, given := range map[string]struct{ file, key []byte }{
		"nothing":         {nil, key},
		"half of its IV":  {whole[:8], key},
		"only its IV":     {whole[:IVBytes], key},
		"a byte too few":  {whole[:len(whole)-1], key},
		"a block too few": {whole[:len(whole)-16], key},
		"another key":     {whole, other},
	} {
		if err := Decrypt(&bytes.Buffer{}, bytes.NewReader(given.file), given.key); err != ErrFile {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAKeyIsBase64OfItsLength(t *testing.T) {
	text := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, KeyBytes))
	if _, err := ReadKey(" " + text[:20] + "\n" + text[20:] + "\n"); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"", "not base64!", "AAAA", text[:40], text + "AAAA"} {
		if _, err := ReadKey(text); err == nil {
			t.Errorf("%q is a key", text)
		}
	}
}
