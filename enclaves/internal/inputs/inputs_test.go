package inputs

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"sluice/enclaves/internal/cipher"
	"sluice/enclaves/internal/failure"
	"sluice/enclaves/internal/program"
)

var (
	rows = bytes.Repeat([]byte("rows that nobody but the enclave may read\n"), 5000)
	key  = bytes.Repeat([]byte{7}, cipher.KeyBytes)
)

func sealed(t *testing.T) []byte {
	t.Helper()
	var made bytes.Buffer
	encrypter, err := cipher.NewEncrypter(&made, key, make([]byte, cipher.IVBytes))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := encrypter.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := encrypter.Close(); err != nil {
		t.Fatal(err)
	}
	return made.Bytes()
}

// environment is that of a task with a dataset, a slice of one more, and an input file.
func environment(folder, url string, file []byte) program.Environment {
	sum := sha256.Sum256(file)
	found := program.Environment{
		"IEXEC_PRE_COMPUTE_OUT": folder, "IS_DATASET_REQUIRED": "true", "IEXEC_BULK_SLICE_SIZE": "1",
		"IEXEC_INPUT_FILES_NUMBER": "1", "IEXEC_INPUT_FILE_URL_1": url + "/input", "IPFS_GATEWAYS": url,
	}
	for _, prefix := range []string{"IEXEC_DATASET", "IEXEC_DATASET_1"} {
		found[prefix+"_URL"] = "/ipfs/QmRows"
		found[prefix+"_KEY"] = base64.StdEncoding.EncodeToString(key)
		found[prefix+"_CHECKSUM"] = "0x" + hex.EncodeToString(sum[:])
		found[prefix+"_FILENAME"] = map[string]string{"IEXEC_DATASET": "0xd1", "IEXEC_DATASET_1": "0xd2"}[prefix]
	}
	return found
}

func serve(t *testing.T, file []byte) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, asked *http.Request) {
		switch asked.URL.Path {
		case "/ipfs/QmRows":
			to.Write(file)
		case "/input":
			to.Write([]byte("an input file"))
		default:
			http.NotFound(to, asked)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func place(given program.Environment) error {
	plan, err := ReadPlan(given)
	if err != nil {
		return err
	}
	return plan.Place()
}

func TestDatasetsAndInputFilesLieInClearUnderTheNamesThatTheAppKnows(t *testing.T) {
	file := sealed(t)
	folder, url := t.TempDir(), serve(t, file)
	if err := place(environment(folder, url, file)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"0xd1": rows, "0xd2": rows, FileName(url + "/input"): []byte("an input file")} {
		if found, err := os.ReadFile(folder + "/" + name); err != nil || !bytes.Equal(found, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestADiskThatIsFullIsNoFaultOfTheDatasetsKey(t *testing.T) {
	file := sealed(t)
	given := environment(t.TempDir(), serve(t, file), file)
	// A file that takes nothing.
	if err := os.Symlink("/dev/full", filepath.Join(given["IEXEC_PRE_COMPUTE_OUT"], partial+"0xd1")); err != nil {
		t.Fatal(err)
	}
	var found *failure.Error
	if err := place(given); !errors.As(err, &found) || found.Cause != failure.PreDatasetSaving {
		t.Error(err)
	}
}

func TestWhateverIsWrongHasItsOwnCauseAndLeavesNoHalfFile(t *testing.T) {
	file := sealed(t)
	url := serve(t, file)
	for cause, change := range map[failure.Cause]map[string]string{
		failure.PreOutputPath:        {"IEXEC_PRE_COMPUTE_OUT": ""},
		failure.PreOutputFolder:      {"IEXEC_PRE_COMPUTE_OUT": "/nowhere/at/all"},
		failure.PreDatasetRequired:   {"IS_DATASET_REQUIRED": "perhaps"},
		failure.PreDatasetURL:        {"IEXEC_DATASET_URL": ""},
		failure.PreDatasetKeyMissing: {"IEXEC_DATASET_1_KEY": ""},
		failure.PreDatasetSum:        {"IEXEC_DATASET_CHECKSUM": ""},
		failure.PreDatasetName:       {"IEXEC_DATASET_FILENAME": "../0xd1"},
		failure.PreInputNumber:       {"IEXEC_INPUT_FILES_NUMBER": "many"},
		failure.PreInputURL:          {"IEXEC_INPUT_FILES_NUMBER": "2"},
		failure.PreUnknown:           {"IEXEC_BULK_SLICE_SIZE": "-1"},
		failure.PreDatasetDownload:   {"IEXEC_DATASET_URL": url + "/elsewhere"},
		failure.PreDatasetBadSum:     {"IEXEC_DATASET_CHECKSUM": "0x" + hex.EncodeToString(make([]byte, 32))},
		failure.PreDatasetDecryption: {"IEXEC_DATASET_KEY": base64.StdEncoding.EncodeToString(make([]byte, 32))},
		failure.PreInputDownload:     {"IEXEC_INPUT_FILE_URL_1": url + "/elsewhere"},
	} {
		t.Run(string(cause), func(t *testing.T) {
			folder := t.TempDir()
			given := environment(folder, url, file)
			for name, value := range change {
				given[name] = value
			}
			var found *failure.Error
			if err := place(given); !errors.As(err, &found) || found.Cause != cause {
				t.Fatalf("%v", err)
			}
			if entries, err := os.ReadDir(folder); err != nil || len(entries) > 2 {
				t.Errorf("left: %v %v", entries, err)
			}
			if halves, _ := os.ReadDir(folder); len(halves) > 0 && halves[0].Name() == partial+"0xd1" {
				t.Error("half a dataset is left")
			}
		})
	}
}
