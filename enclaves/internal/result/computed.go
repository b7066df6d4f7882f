package result

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"sluice/enclaves/internal/ethereum"
	"sluice/enclaves/internal/failure"
)

const (
	// OutputFolder is where an app leaves its result.
	OutputFolder = "/iexec_out"
	computedFile = "computed.json"
	// computedBytes and callbackBytes are the most that counts: what no transaction can carry is no result.
	computedBytes = 256 << 10
	callbackBytes = 12 << 10

	pathKey     = "deterministic-output-path"
	callbackKey = "callback-data"
)

// Computed is what counts of an app's computed.json: one of the two.
type Computed struct {
	// Path is below the output folder; empty: the folder itself.
	Path string
	// Callback is `0x` hex for the deal's callback contract.
	Callback string
	// said is the path as the app has written it.
	said string
}

// ReadComputed reads computed.json in the tree. callback: whether a contract gets the result.
func ReadComputed(tree Tree, callback bool) (Computed, error) {
	if !slices.Contains(tree.Files, computedFile) {
		return Computed{}, failure.New(failure.PostComputedFile, "the app left no computed.json")
	}
	// That it cannot be read is this machine's trouble: the app has left it.
	file, err := tree.open(computedFile)
	if err != nil {
		return Computed{}, failure.Of(err, failure.PostUnknown)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, computedBytes+1))
	if err != nil {
		return Computed{}, failure.Of(err, failure.PostUnknown)
	}
	return parseComputed(content, callback)
}

func parseComputed(content []byte, callback bool) (Computed, error) {
	if len(content) > computedBytes {
		return Computed{}, failure.New(failure.PostComputedFile, "computed.json has more than %d bytes", computedBytes)
	}
	// Not a struct: Go would take names in other cases for these.
	var fields map[string]json.RawMessage
	if !utf8.Valid(content) || json.Unmarshal(content, &fields) != nil {
		return Computed{}, failure.New(failure.PostComputedFile, "computed.json is no JSON object")
	}
	key := pathKey
	if callback {
		key = callbackKey
	}
	var value string
	if string(fields[key]) == "null" || json.Unmarshal(fields[key], &value) != nil || callback && value == "" {
		return Computed{}, failure.New(failure.PostComputedFile, "computed.json has no %s", key)
	}
	if callback {
		if len(ethereum.BytesLeniently(value)) > callbackBytes {
			return Computed{}, failure.New(failure.PostComputedFile, "callback-data has more than %d bytes", callbackBytes)
		}
		return Computed{Callback: value}, nil
	}
	path, inside := relative(value)
	if !inside {
		return Computed{}, failure.New(failure.PostComputedFile, "%s is not below %s", pathKey, OutputFolder)
	}
	return Computed{Path: path, said: value}, nil
}

// relative is a path as the app sees it, from the output folder on; false if it lies outside.
func relative(path string) (string, bool) {
	inside, found := strings.CutPrefix(path, OutputFolder)
	if !found || inside != "" && inside[0] != '/' || strings.ContainsRune(path, 0) {
		return "", false
	}
	var parts []string
	for _, part := range strings.Split(inside, "/") {
		if part == ".." {
			return "", false
		}
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/"), true
}

// Sent is computed.json as a worker gets it from post-compute.
type Sent struct {
	Path      *string `json:"deterministic-output-path"`
	Callback  *string `json:"callback-data"`
	Task      string  `json:"task-id"`
	Digest    string  `json:"result-digest"`
	Signature string  `json:"enclave-signature"`
	Error     *string `json:"error-message"`
}

// Signed is what the worker gets of a result with this digest.
func (c Computed) Signed(task string, digest []byte, signature string) Sent {
	sent := Sent{Task: task, Digest: ethereum.Hex(digest), Signature: signature}
	if c.Callback != "" {
		sent.Callback = &c.Callback
	} else {
		sent.Path = &c.said
	}
	return sent
}
