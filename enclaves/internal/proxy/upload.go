// Package proxy stores results at a result proxy (iExec's 9.1, or the worker, which speaks as one).
//
//	POST /v1/results, token   {"chainTaskId", …, "zip": base64, "deterministHash", "enclaveSignature"}
package proxy

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"sluice/enclaves/internal/failure"
	"sluice/enclaves/internal/worker"
)

const (
	tries      = 4
	firstPause = time.Second
	// answerTimeout is for the proxy to store what it has read.
	answerTimeout = 5 * time.Minute
)

// noDeal stands for the deal, which a proxy does not look at.
const noDeal = "0x0000000000000000000000000000000000000000000000000000000000000000"

var client = http.Client{Transport: &http.Transport{ResponseHeaderTimeout: answerTimeout}}

// Result is what a proxy is given with a zip.
type Result struct{ Digest, Signature string }

// Upload stores the result of a task. zip writes it, and tells what it is once all is written; it is called again for
// each new try, so that no copy of a result is kept anywhere.
func Upload(url, token, task string, zip func(io.Writer) (Result, error)) (Result, error) {
	pause := firstPause
	for try := 1; ; try++ {
		found, again, err := upload(url, token, task, zip)
		if err == nil || !again || try == tries {
			return found, err
		}
		time.Sleep(pause)
		pause *= 2
	}
}

// upload tries once; again: whether another try may end otherwise.
func upload(url, token, task string, zip func(io.Writer) (Result, error)) (found Result, again bool, err error) {
	var own error
	answer, err := worker.Patiently(func() (answer *http.Response, err error) {
		body, to := io.Pipe()
		way, written := &outlet{to: to}, make(chan struct{})
		go func() {
			defer close(written)
			found, own = write(way, task, zip)
			if way.broke {
				own = nil
			}
			to.CloseWithError(own)
		}()
		answer, err = send(url, token, body)
		// A proxy may answer before it has read all.
		body.CloseWithError(io.ErrClosedPipe)
		<-written
		return answer, err
	})
	if err == nil {
		defer answer.Body.Close()
	}
	switch {
	case own != nil:
		// The result is at fault, not the way to the proxy.
		return found, false, own
	case err != nil:
		return found, true, failure.New(failure.PostUpload, "%v", err)
	case answer.StatusCode != http.StatusOK:
		again := answer.StatusCode/100 == 5 || answer.StatusCode == http.StatusTooManyRequests
		return found, again, failure.New(failure.PostUpload, "the result proxy answers HTTP %d", answer.StatusCode)
	}
	return found, false, nil
}

func send(url, token string, body io.ReadCloser) (*http.Response, error) {
	request, err := http.NewRequest(http.MethodPost, strings.TrimRight(url, "/")+"/v1/results", body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", token)
	return client.Do(request)
}

// write is the body: the zip goes through it as it is made, and what is known at its end follows.
func write(to io.Writer, task string, zip func(io.Writer) (Result, error)) (Result, error) {
	const head = `{"chainTaskId":"%s","dealId":"%s","taskIndex":0,"image":null,"cmd":null,"zip":"`
	if _, err := fmt.Fprintf(to, head, task, noDeal); err != nil {
		return Result{}, err
	}
	encoder := base64.NewEncoder(base64.StdEncoding, to)
	found, err := zip(encoder)
	if err != nil {
		return found, err
	}
	if err := encoder.Close(); err != nil {
		return found, err
	}
	_, err = fmt.Fprintf(to, `","deterministHash":"%s","enclaveSignature":"%s"}`, found.Digest, found.Signature)
	return found, err
}

// outlet notes whether it was the way to the proxy that failed.
type outlet struct {
	to    io.Writer
	broke bool
}

func (o *outlet) Write(content []byte) (int, error) {
	count, err := o.to.Write(content)
	o.broke = o.broke || err != nil
	return count, err
}
