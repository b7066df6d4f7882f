package program

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice/enclaves/internal/failure"
)

const secret = "0x3333333333333333333333333333333333333333333333333333333333333333"

func environment(host string) Environment {
	return Environment{
		"IEXEC_TASK_ID":                  "0x" + strings.Repeat("1b", 32),
		"SIGN_WORKER_ADDRESS":            "0x" + strings.Repeat("19", 20),
		"SIGN_TEE_CHALLENGE_PRIVATE_KEY": secret,
		"WORKER_HOST_ENV_VAR":            host,
	}
}

func TestTheExitCodeSaysWhetherTheWorkerKnowsWhy(t *testing.T) {
	for name, given := range map[string]struct {
		missing string
		work    error
		status  int
		want    int
	}{
		"done":            {"", nil, 500, Done},
		"failed":          {"", failure.New(failure.PreDatasetBadSum, "why"), 200, Reported},
		"told before":     {"", failure.New(failure.PreDatasetBadSum, "why"), 208, Reported},
		"for no cause":    {"", errors.New("anything"), 200, Reported},
		"not heard":       {"", errors.New("anything"), 401, Unreported},
		"without a task":  {"IEXEC_TASK_ID", nil, 200, NoTask},
		"without worker":  {"SIGN_WORKER_ADDRESS", nil, 200, Unreported},
		"without its key": {"SIGN_TEE_CHALLENGE_PRIVATE_KEY", nil, 200, Unreported},
	} {
		t.Run(name, func(t *testing.T) {
			var said, path, signed string
			server := httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, asked *http.Request) {
				body, _ := io.ReadAll(asked.Body)
				said, path, signed = string(body), asked.URL.Path, asked.Header.Get("Authorization")
				to.WriteHeader(given.status)
			}))
			defer server.Close()
			with := environment(strings.TrimPrefix(server.URL, "http://"))
			delete(with, given.missing)
			var log strings.Builder
			if code := Run(Pre, with, &log, func(Task) error { return given.work }); code != given.want {
				t.Errorf("exit code %d", code)
			}
			if strings.Contains(log.String(), secret[2:]) {
				t.Error("the key is in the log")
			}
			if given.want != Reported {
				return
			}
			cause := failure.Of(given.work, failure.PreUnknown)
			if want := `[{"cause":"` + string(cause.Cause) + `","message":"` + cause.Why + `"}]`; said != want {
				t.Errorf("said %s", said)
			}
			if path != "/compute/pre/"+with["IEXEC_TASK_ID"]+"/exit-causes" || len(signed) != 132 {
				t.Errorf("to %s with %s", path, signed)
			}
		})
	}
}
