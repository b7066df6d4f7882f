package result

import (
	"strings"
	"unicode/utf8"

	"sluice/enclaves/internal/failure"
)

// What the zip of a result may hold, so that it can be unpacked anywhere: the scheduler refuses others.
const (
	mostEntries    = 10_000
	pathCharacters = 1024
	pathBytes      = 3072
	pathLevels     = 32
	// directoryBytes is for the zip's directory; each entry takes entryBytes beside its path.
	directoryBytes = 2 << 20
	entryBytes     = 46
)

// whyUnfit is why no zip may hold this path, in words without it; empty if it may.
func whyUnfit(path string) string {
	parts := strings.Split(path, "/")
	switch {
	case !utf8.ValidString(path):
		return "a name that is no UTF-8"
	case utf8.RuneCountInString(path) > pathCharacters || len(parts) > pathLevels:
		return "a path of more than 1024 characters or 32 folders"
	case len(path) > pathBytes:
		return "a path of more than 3072 bytes"
	case strings.Contains(path, `\`) || isDrive(path):
		return "a name that leads elsewhere on another system"
	}
	return ""
}

// isDrive tells whether Windows would read the path as one on a disk.
func isDrive(path string) bool {
	return len(path) > 1 && path[1] == ':' && ('a' <= path[0]|0x20 && path[0]|0x20 <= 'z')
}

func requireRoom(paths []string) error {
	total := 0
	for _, path := range paths {
		total += entryBytes + len(path)
	}
	if total > directoryBytes {
		return failure.New(failure.PostZip, "paths of more than %d bytes together", directoryBytes)
	}
	return nil
}
