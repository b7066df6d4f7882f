// Package result is post-compute: what an app has left is digested, zipped, and sealed for its beneficiary.
package result

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"unicode/utf8"

	"sluice/enclaves/internal/failure"
)

// NameCharacters is the most that a file's name may have.
const NameCharacters = 31

// Tree is the regular files and folders below an output folder, sorted; paths have `/` between their parts, and the
// empty one is the folder itself. Links, pipes, sockets and devices are no part of a result.
type Tree struct {
	root           string
	Files, Folders []string
}

// Walk reads the tree below root. What cannot be read is the machine's trouble, and no failure of the app's.
func Walk(root string) (Tree, error) {
	tree := Tree{root: root}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return tree.add(name, entry)
	})
	if err != nil {
		return Tree{}, failure.Of(err, failure.PostUnknown)
	}
	slices.Sort(tree.Files)
	slices.Sort(tree.Folders)
	return tree, requireRoom(append(slices.Clone(tree.Files), tree.Folders...))
}

func (t *Tree) add(name string, entry fs.DirEntry) error {
	if name == "." {
		t.Folders = append(t.Folders, "")
		return nil
	}
	kind := entry.Type()
	switch {
	case kind.IsDir():
		t.Folders = append(t.Folders, name)
	case (kind.IsRegular() || kind&fs.ModeSymlink != 0) && utf8.RuneCountInString(entry.Name()) > NameCharacters:
		return failure.New(failure.PostFileName, "a file's name has more than %d characters", NameCharacters)
	case kind.IsRegular():
		t.Files = append(t.Files, name)
	}
	if len(t.Files)+len(t.Folders) > mostEntries {
		return failure.New(failure.PostZip, "more than %d files and folders", mostEntries)
	}
	if unfit := whyUnfit(name); unfit != "" {
		return failure.New(failure.PostZip, "%s", unfit)
	}
	return nil
}

// open is a file of the tree. The app has ended; still no link is followed and no pipe waited for.
func (t Tree) open(path string) (io.ReadCloser, error) {
	return os.OpenFile(filepath.Join(t.root, path), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}
