package result

import (
	"crypto/rsa"
	"io"

	"sluice/enclaves/internal/cipher"
	"sluice/enclaves/internal/ethereum"
	"sluice/enclaves/internal/failure"
	"sluice/enclaves/internal/program"
	"sluice/enclaves/internal/proxy"
)

// Finish is all of post-compute for the result in folder: store it, unless a contract gets it, and tell the worker.
func Finish(folder string, environment program.Environment, task program.Task) error {
	callback, err := environment.Truth("RESULT_STORAGE_CALLBACK", failure.PostUnknown)
	if err != nil {
		return err
	}
	tree, err := Walk(folder)
	if err != nil {
		return err
	}
	computed, err := ReadComputed(tree, callback)
	if err != nil {
		return err
	}
	var digest []byte
	if callback {
		digest, err = computed.Digest(tree, nil)
	} else {
		digest, err = store(tree, computed, environment, task)
	}
	if err != nil {
		return err
	}
	if err := task.Worker.SendComputed(task.ID, computed.Signed(task.ID, digest, task.Signer.Result(digest))); err != nil {
		return failure.New(failure.PostSendComputed, "%v", err)
	}
	return nil
}

// store uploads the result and returns its digest, which is of the files in clear.
func store(tree Tree, computed Computed, environment program.Environment, task program.Task) (digest []byte, err error) {
	if environment["RESULT_STORAGE_PROVIDER"] == "dropbox" {
		return nil, failure.New(failure.PostDropbox, "results are stored at a result proxy only")
	}
	token, err := environment.Required("RESULT_STORAGE_TOKEN", failure.PostToken)
	if err != nil {
		return nil, err
	}
	url, err := environment.Required("RESULT_STORAGE_PROXY", failure.PostUpload)
	if err != nil {
		return nil, err
	}
	public, err := beneficiary(environment)
	if err != nil {
		return nil, err
	}
	_, err = proxy.Upload(url, token, task.ID, func(to io.Writer) (proxy.Result, error) {
		sums, err := pack(tree, public, to)
		if err != nil {
			return proxy.Result{}, err
		}
		if digest, err = computed.Digest(tree, sums); err != nil {
			return proxy.Result{}, err
		}
		return proxy.Result{Digest: ethereum.Hex(digest), Signature: task.Signer.Result(digest)}, nil
	})
	return digest, err
}

func pack(tree Tree, public *rsa.PublicKey, to io.Writer) (map[string][]byte, error) {
	if public == nil {
		return tree.Zip(to)
	}
	return Seal(to, public, tree.Zip)
}

// beneficiary is the key that the result is encrypted for; nil: it stays in clear.
func beneficiary(environment program.Environment) (*rsa.PublicKey, error) {
	encrypted, err := environment.Truth("RESULT_ENCRYPTION", failure.PostUnknown)
	if err != nil || !encrypted {
		return nil, err
	}
	text, err := environment.Required("RESULT_ENCRYPTION_PUBLIC_KEY", failure.PostKeyMissing)
	if err != nil {
		return nil, err
	}
	key, err := cipher.ReadPublicKey(text)
	if err != nil {
		return nil, failure.New(failure.PostKeyMalformed, "%v", err)
	}
	return key, nil
}
