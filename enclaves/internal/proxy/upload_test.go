package proxy

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice/enclaves/internal/failure"
)

// model is how iExec's result proxy reads a result.
type model struct {
	ChainTaskID      string `json:"chainTaskId"`
	DealID           string `json:"dealId"`
	Zip              []byte `json:"zip"`
	DeterministHash  string `json:"deterministHash"`
	EnclaveSignature string `json:"enclaveSignature"`
}

func zipOf(content string) func(io.Writer) (Result, error) {
	return func(to io.Writer) (Result, error) {
		_, err := io.WriteString(to, content)
		return Result{"0xdigest", "0xsignature"}, err
	}
}

func TestAResultIsStoredAsIExecsProxyReadsIt(t *testing.T) {
	var found model
	var token string
	server := httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, asked *http.Request) {
		token = asked.Method + " " + asked.URL.Path + " " + asked.Header.Get("Authorization")
		if err := json.NewDecoder(asked.Body).Decode(&found); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	content := strings.Repeat("a zip", 100_000)
	if _, err := Upload(server.URL+"/", "a-token", "0xtask", zipOf(content)); err != nil {
		t.Fatal(err)
	}
	if string(found.Zip) != content || token != "POST /v1/results a-token" {
		t.Errorf("%d bytes, %s", len(found.Zip), token)
	}
	found.Zip = nil
	if want := (model{"0xtask", noDeal, nil, "0xdigest", "0xsignature"}); found.ChainTaskID != want.ChainTaskID ||
		found.DealID != want.DealID || found.DeterministHash != want.DeterministHash ||
		found.EnclaveSignature != want.EnclaveSignature {
		t.Errorf("%+v", found)
	}
}

func TestAProxyThatIsInTroubleIsAskedAgainAndOneThatRefusesIsNot(t *testing.T) {
	for _, given := range []struct {
		answers []int
		cause   failure.Cause
	}{
		{[]int{503, 200}, ""},
		{[]int{401}, failure.PostUpload},
	} {
		asked := 0
		server := httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, request *http.Request) {
			asked++
			// Not all is read: a proxy may refuse before.
			to.WriteHeader(given.answers[min(asked, len(given.answers))-1])
		}))
		_, err := Upload(server.URL, "a-token", "0xtask", zipOf(strings.Repeat("a zip", 1_000_000)))
		server.Close()
		var found *failure.Error
		if given.cause == "" && err != nil || given.cause != "" && (!errors.As(err, &found) || found.Cause != given.cause) {
			t.Errorf("%v: %v", given.answers, err)
		}
		if asked != len(given.answers) {
			t.Errorf("asked %d times", asked)
		}
	}
}

func TestAFaultOfTheResultIsNoFaultOfTheProxyAndIsNotTriedAgain(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, asked *http.Request) {
		io.Copy(io.Discard, asked.Body)
	}))
	defer server.Close()
	tried := 0
	_, err := Upload(server.URL, "a-token", "0xtask", func(io.Writer) (Result, error) {
		tried++
		return Result{}, failure.New(failure.PostZip, "a file cannot be read")
	})
	var found *failure.Error
	if !errors.As(err, &found) || found.Cause != failure.PostZip || tried != 1 {
		t.Errorf("%v after %d tries", err, tried)
	}
}
