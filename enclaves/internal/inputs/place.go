package inputs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sluice/enclaves/internal/cipher"
	"sluice/enclaves/internal/failure"
	"sluice/enclaves/internal/fetch"
)

const (
	// partial begins the names of files that are not whole yet: a file of the app's is there as a whole or not at all.
	partial = ".part-"
	// forAll lets an app read it whoever its image's user is.
	forAll = 0o644
)

// Place puts all files into the folder.
func (p Plan) Place() error {
	if info, err := os.Stat(p.Folder); err != nil || !info.IsDir() {
		return failure.New(failure.PreOutputFolder, "%s is no folder", p.Folder)
	}
	for _, dataset := range p.Datasets {
		if err := p.placeDataset(dataset); err != nil {
			return err
		}
	}
	for _, file := range p.Files {
		addresses := fetch.Addresses(file.URL, p.Gateways)
		take := func(body io.Reader) error { return p.write(file.Name, body) }
		if err := fetch.To(addresses, take); err != nil {
			return failure.New(failure.PreInputDownload, "%s: %v", file.Name, err)
		}
	}
	return nil
}

func (p Plan) placeDataset(dataset Dataset) error {
	key, err := cipher.ReadKey(dataset.Key)
	if err != nil {
		return failure.New(failure.PreDatasetDecryption, "%s: %v", dataset.Name, err)
	}
	take := func(body io.Reader) error { return p.decrypt(dataset, key, body) }
	err = fetch.To(fetch.Addresses(dataset.URL, p.Gateways), take)
	if err == nil {
		return nil
	}
	found := failure.Of(err, failure.PreDatasetDownload)
	return failure.New(found.Cause, "%s: %s", dataset.Name, found.Why)
}

// decrypt writes a dataset's content, and leaves nothing unless checksum and key are right. The file is read once: what
// is decrypted before the checksum is known stays under a name that no app looks for.
func (p Plan) decrypt(dataset Dataset, key []byte, body io.Reader) error {
	sum := sha256.New()
	source := io.TeeReader(body, sum)
	content, to := io.Pipe()
	opened := make(chan error, 1)
	go func() {
		err := cipher.Decrypt(to, source, key)
		// All of the file counts for its checksum, also what follows a fault.
		if _, rest := io.Copy(io.Discard, source); rest != nil {
			err = errors.Join(rest, err)
		}
		if found := "0x" + hex.EncodeToString(sum.Sum(nil)); !strings.EqualFold(found, dataset.Checksum) {
			err = failure.New(failure.PreDatasetBadSum, "its sha256 is %s, not %s", found, dataset.Checksum)
		}
		opened <- err
		to.CloseWithError(err)
	}()
	written := p.write(dataset.Name, content)
	content.CloseWithError(written)
	err := <-opened
	// Each side ends with the other's error: that of a file tells whose it was.
	var saving *fs.PathError
	if errors.As(written, &saving) {
		return failure.New(failure.PreDatasetSaving, "%v", written)
	}
	if err != nil {
		return failure.Of(err, failure.PreDatasetDecryption)
	}
	return nil
}

// write makes a file of all that content has, or none.
func (p Plan) write(name string, content io.Reader) (err error) {
	path := filepath.Join(p.Folder, partial+name)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, forAll)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	_, err = io.Copy(file, content)
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	if err = os.Chmod(path, forAll); err != nil {
		return err
	}
	return os.Rename(path, filepath.Join(p.Folder, name))
}
