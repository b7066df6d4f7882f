package result

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice/enclaves/internal/ethereum"
	"sluice/enclaves/internal/failure"
	"sluice/enclaves/internal/program"
)

func TestAResultIsStoredInClearOnlyIfTheSessionSaysSo(t *testing.T) {
	for word, cause := range map[string]failure.Cause{
		"false": "", "no": "",
		"true": failure.PostKeyMissing, "yes": failure.PostKeyMissing, "True": failure.PostKeyMissing,
		"": failure.PostUnknown, "1?": failure.PostUnknown,
	} {
		t.Run(word, func(t *testing.T) {
			stored := 0
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, asked *http.Request) {
				var found map[string]any
				if json.NewDecoder(asked.Body).Decode(&found) == nil {
					stored++
				}
			}))
			defer server.Close()
			tree, err := Walk(written(t, map[string]string{"r": "hello"}))
			if err != nil {
				t.Fatal(err)
			}
			environment := program.Environment{
				"RESULT_ENCRYPTION": word, "RESULT_STORAGE_TOKEN": "a-token", "RESULT_STORAGE_PROXY": server.URL,
			}
			_, err = store(tree, Computed{Path: "r"}, environment, signing(t))
			var found failure.Cause
			if err != nil {
				found = failure.Of(err, "").Cause
			}
			if found != cause {
				t.Errorf("%v", err)
			}
			if (stored == 1) != (cause == "") {
				t.Errorf("stored %d times", stored)
			}
		})
	}
}

func signing(t *testing.T) program.Task {
	t.Helper()
	key, err := ethereum.ReadKey("0x" + strings.Repeat("33", 32))
	if err != nil {
		t.Fatal(err)
	}
	id := "0x" + strings.Repeat("1b", 32)
	signer, err := ethereum.NewSigner(key, id, "0x"+strings.Repeat("19", 20))
	if err != nil {
		t.Fatal(err)
	}
	return program.Task{ID: id, Signer: signer}
}
