package result

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/enclaves/internal/ethereum"
	"sluice/enclaves/internal/failure"
)

// written is a folder with these files; a name that ends with a slash is a folder.
func written(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		folder := filepath.Dir(path)
		if strings.HasSuffix(name, "/") {
			folder = path
		}
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if folder == path {
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func digest(root string, callback bool) (string, error) {
	tree, err := Walk(root)
	if err != nil {
		return "", err
	}
	computed, err := ReadComputed(tree, callback)
	if err != nil {
		return "", err
	}
	sums, err := tree.Zip(io.Discard)
	if err != nil {
		return "", err
	}
	found, err := computed.Digest(tree, sums)
	return ethereum.Hex(found), err
}

// Results of iexec-worker 9.2.
const (
	hello      = "0x2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	folderOfAB = "0x3e414b345ce4e8d016eff459b112b41de5bc488237863d83187f93ba096a9666"
	folderOfBA = "0xce95d7f2b14b7a634af979eab1f96983236bb41c9f9ac67afcd1d4231e142831"
	emptyFile  = "0xa332df1e58a99d8dcb0767dab2d23985ef337d59fadbe040f56e1c642b314973"
	nothing    = "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
	one        = "0xb10e2d527612073b26eecdfd717e6a320cf44b4afac2b0732d9fcbe2b7fa0cf6"
)

func TestDigestsAreThoseOfIExecsWorker(t *testing.T) {
	for name, given := range map[string]struct {
		files map[string]string
		want  string
	}{
		"a file":            {map[string]string{"r": "hello"}, hello},
		"a folder":          {map[string]string{"r/a.txt": "A", "r/b.txt": "B"}, folderOfAB},
		"folders in it":     {map[string]string{"r/a.txt": "A", "r/b.txt": "B", "r/sub/c.txt": "C"}, folderOfAB},
		"other names":       {map[string]string{"r/x": "A", "r/y": "B"}, folderOfAB},
		"another order":     {map[string]string{"r/z.txt": "A", "r/b.txt": "B"}, folderOfBA},
		"capitals first":    {map[string]string{"r/B.txt": "B", "r/a.txt": "A"}, folderOfBA},
		"numbers by digits": {map[string]string{"r/10": "A", "r/9": "B"}, folderOfAB},
		"UTF-16, not UTF-8": {map[string]string{"r/\U0001f600": "A", "r/\uff5e": "B"}, folderOfAB},
		"an empty file":     {map[string]string{"r/e": ""}, emptyFile},
		"an empty folder":   {map[string]string{"r/": ""}, nothing},
	} {
		t.Run(name, func(t *testing.T) {
			given.files[computedFile] = `{"deterministic-output-path": "/iexec_out/./r/"}`
			if found, err := digest(written(t, given.files), false); err != nil || found != given.want {
				t.Errorf("%s %v", found, err)
			}
		})
	}
}

func TestACallbacksDigestIsOfItsData(t *testing.T) {
	for data, want := range map[string]string{"0x" + strings.Repeat("0", 63) + "1": one, "0x": nothing} {
		root := written(t, map[string]string{computedFile: `{"callback-data": "` + data + `"}`})
		if found, err := digest(root, true); err != nil || found != want {
			t.Errorf("%s: %s %v", data, found, err)
		}
	}
}

func TestWhatIsNoResultHasItsOwnCause(t *testing.T) {
	long := strings.Repeat("n", NameCharacters+1)
	for name, given := range map[string]struct {
		files map[string]string
		cause failure.Cause
	}{
		"no computed.json":     {map[string]string{"r": "x"}, failure.PostComputedFile},
		"no JSON":              {map[string]string{computedFile: "{"}, failure.PostComputedFile},
		"a list":               {map[string]string{computedFile: "[]"}, failure.PostComputedFile},
		"no path":              {map[string]string{computedFile: "{}"}, failure.PostComputedFile},
		"null":                 {map[string]string{computedFile: `{"deterministic-output-path": null}`}, failure.PostComputedFile},
		"other case":           {map[string]string{computedFile: `{"Deterministic-Output-Path": "/iexec_out"}`}, failure.PostComputedFile},
		"outside":              {map[string]string{computedFile: `{"deterministic-output-path": "/iexec_out/../etc"}`}, failure.PostComputedFile},
		"beside":               {map[string]string{computedFile: `{"deterministic-output-path": "/iexec_output"}`}, failure.PostComputedFile},
		"nothing there":        {map[string]string{computedFile: `{"deterministic-output-path": "/iexec_out/r"}`}, failure.PostDigest},
		"a long name":          {map[string]string{computedFile: `{"deterministic-output-path": "/iexec_out"}`, long: ""}, failure.PostFileName},
		"a path of many bytes": {map[string]string{computedFile: `{"deterministic-output-path": "/iexec_out"}`, strings.Repeat(strings.Repeat("\U0001f600", 55)+"/", 15): ""}, failure.PostZip},
		"a name for Windows":   {map[string]string{computedFile: `{"deterministic-output-path": "/iexec_out"}`, `a\b`: ""}, failure.PostZip},
	} {
		t.Run(name, func(t *testing.T) {
			var found *failure.Error
			if _, err := digest(written(t, given.files), false); !errors.As(err, &found) || found.Cause != given.cause {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestWhatCannotBeReadIsTheMachinesTroubleAndNoFailureOfTheApp(t *testing.T) {
	root := written(t, map[string]string{computedFile: `{"deterministic-output-path": "/iexec_out"}`, "r": "A"})
	tree, err := Walk(root)
	if err != nil {
		t.Fatal(err)
	}
	// As a disk that fails after the names were read.
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	_, walked := Walk(root)
	_, computed := ReadComputed(tree, false)
	_, zipped := tree.Zip(io.Discard)
	for name, err := range map[string]error{"walk": walked, "computed.json": computed, "zip": zipped} {
		var found *failure.Error
		if !errors.As(err, &found) || found.Cause != failure.PostUnknown {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLinksAreNoPartOfAResultAndEachZipOfTheSameFilesIsTheSame(t *testing.T) {
	var zips [2]bytes.Buffer
	for index := range zips {
		root := written(t, map[string]string{"r/a": "A", "empty/": "", computedFile: "{}"})
		if err := os.Symlink("/etc/passwd", filepath.Join(root, "link")); err != nil {
			t.Fatal(err)
		}
		tree, err := Walk(root)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tree.Zip(&zips[index]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(zips[0].Bytes(), zips[1].Bytes()) {
		t.Error("two zips differ")
	}
	archive, err := zip.NewReader(bytes.NewReader(zips[0].Bytes()), int64(zips[0].Len()))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range archive.File {
		names = append(names, file.Name)
	}
	if found := strings.Join(names, " "); found != "empty/ computed.json r/a" {
		t.Error(found)
	}
}

func TestMoreThanABeneficiaryCanDecryptIsRefused(t *testing.T) {
	source := &bounded{to: io.Discard, left: 10}
	if _, err := source.Write(make([]byte, 10)); err != nil {
		t.Error(err)
	}
	var found *failure.Error
	if _, err := source.Write([]byte{0}); !errors.As(err, &found) || found.Cause != failure.PostEncryption {
		t.Error(err)
	}
}
