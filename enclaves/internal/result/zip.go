package result

import (
	"archive/zip"
	"crypto/sha256"
	"io"
	"io/fs"
	"slices"
	"strings"

	"sluice/enclaves/internal/failure"
)

// firstDay is the first that a zip can name: 1980-01-01. Each zip of the same files is the same.
const firstDay = 1<<5 | 1

// Unix modes of all that is in a zip.
const fileMode, folderMode = 0o644, 0o755

// Zip writes all of the tree to a zip and returns the sha256 of each file. Each byte is read once. Walk has found the
// tree fit for a zip: what fails here is the machine, or the way out.
func (t Tree) Zip(to io.Writer) (map[string][]byte, error) {
	archive := zip.NewWriter(to)
	for _, folder := range t.emptyFolders() {
		if _, err := archive.CreateHeader(header(folder+"/", zip.Store)); err != nil {
			return nil, failure.Of(err, failure.PostUnknown)
		}
	}
	sums := map[string][]byte{}
	for _, path := range t.Files {
		entry, err := archive.CreateHeader(header(path, zip.Deflate))
		if err != nil {
			return nil, failure.Of(err, failure.PostUnknown)
		}
		if sums[path], err = t.copy(entry, path); err != nil {
			return nil, failure.Of(err, failure.PostUnknown)
		}
	}
	if err := archive.Close(); err != nil {
		return nil, failure.Of(err, failure.PostUnknown)
	}
	return sums, nil
}

func (t Tree) copy(to io.Writer, path string) ([]byte, error) {
	file, err := t.open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(sum, to), file); err != nil {
		return nil, err
	}
	return sum.Sum(nil), nil
}

// emptyFolders are those that no other entry would imply.
func (t Tree) emptyFolders() []string {
	parents := map[string]bool{"": true}
	for _, path := range slices.Concat(t.Files, t.Folders) {
		folder, _ := cut(path)
		parents[folder] = true
	}
	return slices.DeleteFunc(slices.Clone(t.Folders), func(folder string) bool { return parents[folder] })
}

func header(name string, method uint16) *zip.FileHeader {
	found := &zip.FileHeader{Name: name, Method: method, ModifiedDate: firstDay}
	if strings.HasSuffix(name, "/") {
		found.SetMode(folderMode | fs.ModeDir)
	} else {
		found.SetMode(fileMode)
	}
	return found
}
