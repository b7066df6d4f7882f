// Package inputs is pre-compute: what an app reads is fetched, checked and decrypted into its input folder.
package inputs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"sluice/enclaves/internal/failure"
	"sluice/enclaves/internal/fetch"
	"sluice/enclaves/internal/program"
)

// mostFiles bounds numbers in the environment; a deal has far fewer.
const mostFiles = 100_000

// Dataset is one encrypted file: where it lies, its sha256 (`0x` hex), the key that opens it and its name for the app.
type Dataset struct{ URL, Checksum, Key, Name string }

// InputFile is a file in clear.
type InputFile struct{ URL, Name string }

// Plan is what is put into a folder.
type Plan struct {
	Folder   string
	Datasets []Dataset
	Files    []InputFile
	// Gateways for IPFS addresses.
	Gateways []string
}

// ReadPlan is the plan in a program's environment (variables of iExec SMS 9.3).
func ReadPlan(environment program.Environment) (Plan, error) {
	folder, err := environment.Required("IEXEC_PRE_COMPUTE_OUT", failure.PreOutputPath)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{Folder: folder, Gateways: fetch.Gateways}
	if own := strings.Fields(environment["IPFS_GATEWAYS"]); len(own) > 0 {
		plan.Gateways = own
	}
	if plan.Datasets, err = readDatasets(environment); err != nil {
		return Plan{}, err
	}
	plan.Files, err = readFiles(environment)
	return plan, err
}

// readDatasets are the deal's dataset, and those of the task's slice of a bulk.
func readDatasets(environment program.Environment) ([]Dataset, error) {
	var found []Dataset
	required, err := environment.Truth("IS_DATASET_REQUIRED", failure.PreDatasetRequired)
	if err != nil {
		return nil, err
	}
	if required {
		dataset, err := readDataset(environment, "IEXEC_DATASET")
		if err != nil {
			return nil, err
		}
		found = append(found, dataset)
	}
	slice, err := number(environment, "IEXEC_BULK_SLICE_SIZE", failure.PreUnknown)
	for index := 1; err == nil && index <= slice; index++ {
		var dataset Dataset
		dataset, err = readDataset(environment, fmt.Sprintf("IEXEC_DATASET_%d", index))
		found = append(found, dataset)
	}
	return found, err
}

func readDataset(environment program.Environment, prefix string) (Dataset, error) {
	var found Dataset
	for _, part := range []struct {
		name  string
		into  *string
		cause failure.Cause
	}{
		{"URL", &found.URL, failure.PreDatasetURL},
		{"KEY", &found.Key, failure.PreDatasetKeyMissing},
		{"CHECKSUM", &found.Checksum, failure.PreDatasetSum},
		{"FILENAME", &found.Name, failure.PreDatasetName},
	} {
		value, err := environment.Required(prefix+"_"+part.name, part.cause)
		if err != nil {
			return Dataset{}, err
		}
		*part.into = value
	}
	if !isName(found.Name) {
		return Dataset{}, failure.New(failure.PreDatasetName, "%s_FILENAME is no name of a file", prefix)
	}
	return found, nil
}

func readFiles(environment program.Environment) ([]InputFile, error) {
	count, err := number(environment, "IEXEC_INPUT_FILES_NUMBER", failure.PreInputNumber)
	var found []InputFile
	for index := 1; err == nil && index <= count; index++ {
		var url string
		url, err = environment.Required(fmt.Sprintf("IEXEC_INPUT_FILE_URL_%d", index), failure.PreInputURL)
		name := environment[fmt.Sprintf("IEXEC_INPUT_FILE_NAME_%d", index)]
		if name == "" {
			name = FileName(url)
		}
		if !isName(name) {
			return nil, failure.New(failure.PreInputURL, "IEXEC_INPUT_FILE_NAME_%d is no name of a file", index)
		}
		found = append(found, InputFile{url, name})
	}
	return found, err
}

// FileName is what an app finds an input file under: `0x` hex of the sha256 of its URL.
func FileName(url string) string {
	sum := sha256.Sum256([]byte(url))
	return "0x" + hex.EncodeToString(sum[:])
}

func isName(text string) bool {
	return text == filepath.Base(text) && text != "." && text != ".." && text != "/" && !strings.ContainsRune(text, 0)
}

// number is a count in the environment; one that is not there is none.
func number(environment program.Environment, name string, cause failure.Cause) (int, error) {
	text := environment[name]
	if text == "" {
		return 0, nil
	}
	found, err := strconv.Atoi(text)
	if err != nil || found < 0 || found > mostFiles {
		return 0, failure.New(cause, "%s is no number of files", name)
	}
	return found, nil
}
