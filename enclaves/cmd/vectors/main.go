// Command vectors lets tests hold the parts of pre- and post-compute against other implementations: it reads requests,
// one JSON object a line, and answers each with a line. It is in no image.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"

	"sluice/enclaves/internal/cipher"
	"sluice/enclaves/internal/ethereum"
	"sluice/enclaves/internal/inputs"
	"sluice/enclaves/internal/result"
)

// request asks for one thing; bytes are base64, as JSON has them.
type request struct {
	Do       string `json:"do"`
	Key      []byte `json:"key"`
	IV       []byte `json:"iv"`
	Content  []byte `json:"content"`
	Public   string `json:"public"`
	Text     string `json:"text"`
	Task     string `json:"task"`
	Wallet   string `json:"wallet"`
	Folder   string `json:"folder"`
	Callback bool   `json:"callback"`
}

func main() {
	requests, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var asked request
		if err := requests.Decode(&asked); err == io.EOF {
			return
		} else if err != nil {
			panic(err)
		}
		found, err := asked.answer()
		answer := map[string]any{"found": found}
		if err != nil {
			answer = map[string]any{"error": err.Error()}
		}
		if err := answers.Encode(answer); err != nil {
			panic(err)
		}
	}
}

func (r request) answer() (any, error) {
	var made bytes.Buffer
	switch r.Do {
	case "encrypt":
		encrypter, err := cipher.NewEncrypter(&made, r.Key, r.IV)
		if err == nil {
			_, err = encrypter.Write(r.Content)
		}
		if err == nil {
			err = encrypter.Close()
		}
		return made.Bytes(), err
	case "decrypt":
		key, err := cipher.ReadKey(base64.StdEncoding.EncodeToString(r.Key))
		if err == nil {
			err = cipher.Decrypt(&made, bytes.NewReader(r.Content), key)
		}
		return made.Bytes(), err
	case "seal":
		public, err := cipher.ReadPublicKey(r.Public)
		if err == nil {
			_, err = result.SealWith(&made, public, r.Key, r.IV, func(to io.Writer) (int, error) { return to.Write(r.Content) })
		}
		return made.Bytes(), err
	case "hex":
		return ethereum.BytesLeniently(r.Text), nil
	case "input name":
		return inputs.FileName(r.Text), nil
	case "sign":
		return r.signatures()
	}
	return r.packed()
}

// signatures are those of a session and of the result whose digest is the content.
func (r request) signatures() (any, error) {
	key, err := ethereum.ReadKey(ethereum.Hex(r.Key))
	if err != nil {
		return nil, err
	}
	signer, err := ethereum.NewSigner(key, r.Task, r.Wallet)
	return []string{signer.Session(), signer.Result(r.Content)}, err
}

// packed is the digest of a folder's result, and the zip of all of it.
func (r request) packed() (any, error) {
	tree, err := result.Walk(r.Folder)
	if err != nil {
		return nil, err
	}
	computed, err := result.ReadComputed(tree, r.Callback)
	if err != nil {
		return nil, err
	}
	var made bytes.Buffer
	sums, err := tree.Zip(&made)
	if err != nil {
		return nil, err
	}
	digest, err := computed.Digest(tree, sums)
	return []any{ethereum.Hex(digest), made.Bytes()}, err
}
