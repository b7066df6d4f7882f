// Package worker speaks to the worker on whose machine an enclave runs (REST API of iexec-worker 9.2).
//
//	POST /compute/pre|post/<task>/exit-causes   why this program fails: [{"cause", "message"}]
//	POST /compute/post/<task>/computed          computed.json with digest and signature
//
// Each request carries the challenge key's signature for this task and worker.
package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"
)

// DefaultHost is what iExec's worker is called on the network of its enclaves.
const DefaultHost = "worker:13100"

const (
	// requestTimeout is for one answer: the worker reads a body of a few kilobytes and writes it down.
	requestTimeout = 30 * time.Second
	// openTimeout is for the worker to open its door, which it does once this program runs.
	openTimeout = 20 * time.Second
	retryPause  = 20 * time.Millisecond
)

// Stage is the part of a path that tells who speaks.
type Stage string

// The stages of a task around its app.
const (
	Pre  Stage = "pre"
	Post Stage = "post"
)

// API is the worker at one host.
type API struct {
	base, authorization string
}

// New is the worker at host, with the signature that goes with each request.
func New(host, authorization string) API {
	return API{base: "http://" + host, authorization: authorization}
}

// ExitCause is why a program fails.
type ExitCause struct {
	Cause   string `json:"cause"`
	Message string `json:"message"`
}

// ReportExit tells why the program fails.
func (a API) ReportExit(stage Stage, task string, causes ...ExitCause) error {
	return a.post(fmt.Sprintf("/compute/%s/%s/exit-causes", stage, task), causes)
}

// SendComputed tells what the result is; computed is computed.json as the contract with workers has it.
func (a API) SendComputed(task string, computed any) error {
	return a.post(fmt.Sprintf("/compute/post/%s/computed", task), computed)
}

func (a API) post(path string, body any) error {
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	answer, err := Patiently(func() (*http.Response, error) {
		request, err := http.NewRequest(http.MethodPost, a.base+path, bytes.NewReader(content))
		if err != nil {
			return nil, err
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", a.authorization)
		return (&http.Client{Timeout: requestTimeout}).Do(request)
	})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	// 208: it was told before.
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusAlreadyReported {
		return fmt.Errorf("the worker answers HTTP %d", answer.StatusCode)
	}
	return nil
}

// Patiently calls ask again while nobody listens there yet.
func Patiently(ask func() (*http.Response, error)) (*http.Response, error) {
	for until := time.Now().Add(openTimeout); ; time.Sleep(retryPause) {
		answer, err := ask()
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(until) {
			return answer, err
		}
	}
}
