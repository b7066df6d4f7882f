package result

import (
	"slices"
	"strings"
	"unicode/utf16"

	"sluice/enclaves/internal/ethereum"
	"sluice/enclaves/internal/failure"
)

// Digest is what honest machines agree on (iexec-worker 9.2); sums are the sha256 of each file of the tree.
//
//	a callback   keccak of its data
//	a file       sha256 of its content
//	a folder     keccak of the sha256 of each file directly in it, in Java's order of names
func (c Computed) Digest(tree Tree, sums map[string][]byte) ([]byte, error) {
	if c.Callback != "" {
		return ethereum.Keccak(ethereum.BytesLeniently(c.Callback)), nil
	}
	if sum, isFile := sums[c.Path]; isFile {
		return sum, nil
	}
	if !slices.Contains(tree.Folders, c.Path) {
		return nil, failure.New(failure.PostDigest, "%s does not exist", pathKey)
	}
	var names []string
	for _, path := range tree.Files {
		if folder, name := cut(path); folder == c.Path {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, javaOrder)
	var parts [][]byte
	for _, name := range names {
		path := name
		if c.Path != "" {
			path = c.Path + "/" + name
		}
		parts = append(parts, sums[path])
	}
	return ethereum.Keccak(parts...), nil
}

// cut is a path's folder and name.
func cut(path string) (folder, name string) {
	at := strings.LastIndexByte(path, '/')
	if at < 0 {
		return "", path
	}
	return path[:at], path[at+1:]
}

// javaOrder compares names by their UTF-16 code units.
func javaOrder(one, other string) int {
	return slices.Compare(utf16.Encode([]rune(one)), utf16.Encode([]rune(other)))
}
